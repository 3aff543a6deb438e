"""Masks by name: sections, how they are combined, and whether a human brain is expected."""

from __future__ import annotations

from dataclasses import dataclass

from qsmxt.errors import ParameterError


@dataclass(frozen=True)
class MaskPreset:
    """Sections of the grammar of :mod:`qsmxt.algorithms.masking.sections`; ``summary`` says when to use it."""

    sections: tuple[str, ...]
    summary: str
    combine: str = "and"
    human_brain: bool = True


_BRAIN = "magnitude:first,bet:clearance=1.5,trim,close:3,largest,fill"

PRESETS: dict[str, MaskPreset] = {
    "gre": MaskPreset((_BRAIN,), "human brain, 3D gradient echo (default)"),
    "epi": MaskPreset(
        ("magnitude:first,bet:0.55:clearance=1,trim,close:3,largest,fill",), "human brain, echo-planar imaging"
    ),
    "bet": MaskPreset(("magnitude:rss,bet,erode:3",), "human brain, brain extraction and erosion only"),
    "fast": MaskPreset(("magnitude:first,bet:clearance=1.5",), "human brain, least computing"),
    "body": MaskPreset(
        ("magnitude:rss,robust", "phase-quality,otsu,smooth:3,fill"),
        "any part of the body, nothing assumed about the anatomy",
        human_brain=False,
    ),
    "phantom": MaskPreset(("magnitude:rss,robust,erode:1",), "test objects: all that gives signal", human_brain=False),
}


def mask_preset(name: str) -> MaskPreset:
    """The preset called ``name``, or :class:`ParameterError` that lists what there is."""
    if name not in PRESETS:
        raise ParameterError(f"mask preset: expected one of {', '.join(PRESETS)}; found {name!r}")
    return PRESETS[name]
