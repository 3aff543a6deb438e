"""Masks by name: sections, how they are combined, and whether a human brain is expected.

The default, ``gre``, looks at the first echo: a mesh finds the inside of the skull and keeps 1.5 mm from it
(``bet``), dark bone and air that it still encloses are cut away (``trim``), gaps of surface veins are closed, one
piece without cavities stays. ``cortex`` removes the fluid between skull and cortex as well, which it tells by its
slow decay (``peel``).

Measured on the digital head (``python -m benchmarks masks``, tables in ``docs/masks.md``), several echoes, 1 to 3 mm,
3 and 7 T, signal-to-noise ratio 20 and 100, oblique, other anatomies: ``gre`` has a Dice of 0.953 to 0.969 with the
inside of the skull and of 0.928 to 0.951 with the brain, 99.1 to 99.8 % of it kept; ``cortex`` 0.953 to 0.986 with the
brain, 99.1 to 99.9 % kept. No voxel is air. The default is not ``cortex`` because a rim of fluid makes the map at the
rim of the brain more accurate: the error over the whole brain is 56 % with and 65 % without (2.5 mm; five voxels inside
34.7 and 35.5 %). With one late echo see ``epi``: 0.95 at 3 T; 0.94 at 7 T and 3 mm, where the sinuses take the signal.
"""

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
        ("magnitude:first,bet:0.55:clearance=1,trim,peel,close:3,largest,fill",), "human brain, echo-planar imaging"
    ),
    "cortex": MaskPreset(
        ("magnitude:first,bet:clearance=1,trim,peel,close:3,largest,fill",),
        "human brain, mask that follows the cortex and not the skull",
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
