"""Masks by name: sections, how they are combined, and whether a human brain is expected.

The default, ``gre``, looks at the first echo: a mesh finds the inside of the skull and keeps 1.5 mm from it
(``bet``), dark bone and air that it still encloses are cut away (``trim``), gaps of surface veins are closed, one
piece without cavities stays. On this mask the field is inverted (``support``). The map is cut to the brain: the fluid
between skull and cortex, which decays slowly, goes (``peel``).

Measured on the digital head (``python -m benchmarks masks``, tables in ``docs/masks.md``), 1 to 3 mm, 3 and 7 T,
signal-to-noise ratio 20 and 100, oblique, other anatomies: with several echoes ``gre`` has a Dice of 0.957 to 0.987
with the brain and keeps 99.2 to 99.9 % of it; its support has 0.954 to 0.969 with the inside of the skull. With one
late echo the Dice is 0.960 to 0.968 at 3 T; at 7 T, where the sinuses take the signal, 0.978 at 1 mm and 0.951 at 3 mm.
No voxel is air. The inversion on the mask of the brain itself would make the error over the whole brain 65 % instead of
56 % (2.5 mm): a map is worst at the rim of its support, so a rim of fluid is left around the brain.
"""

from __future__ import annotations

from dataclasses import dataclass

from qsmxt.errors import ParameterError


@dataclass(frozen=True)
class MaskPreset:
    """Sections of the grammar of :mod:`qsmxt.registry.mask_sections`; ``summary`` says when to use it."""

    sections: tuple[str, ...]
    summary: str
    combine: str = "and"
    human_brain: bool = True


_BRAIN = "magnitude:first,bet:clearance=1.5,trim,close:3,largest,fill,support,peel,close:3,largest,fill"

PRESETS: dict[str, MaskPreset] = {
    "gre": MaskPreset((_BRAIN,), "human brain, 3D gradient echo (default)"),
    "epi": MaskPreset((_BRAIN.replace("bet:", "bet:0.55:"),), "human brain, echo-planar imaging"),
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
