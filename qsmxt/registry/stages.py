"""The stages of a reconstruction, in the order in which they can run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A step of the reconstruction that several methods can do.

    ``key`` names the folder below ``qsmxt/algorithms`` and the command-line option ``--<key>``.
    """

    key: str
    title: str


STAGES: tuple[Stage, ...] = (
    Stage("combination", "Coil combination"),
    Stage("offset", "Phase-offset removal"),
    Stage("unwrapping", "Phase unwrapping"),
    Stage("field", "Field mapping"),
    Stage("masking", "Masking"),
    Stage("background", "Background field removal"),
    Stage("inversion", "Dipole inversion"),
    Stage("merging", "Merging"),
    Stage("referencing", "Referencing"),
    Stage("swi", "Susceptibility-weighted imaging"),
    Stage("relaxometry", "Relaxometry"),
    Stage("spinecho", "Relaxometry of spin echoes"),
    Stage("separation", "Source separation"),
    Stage("orientation", "Multiple orientations"),
)


def stage_keys() -> tuple[str, ...]:
    """Keys of all stages, in order."""
    return tuple(stage.key for stage in STAGES)
