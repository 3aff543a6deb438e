"""A susceptibility channel for templates that have none, painted from their atlas.

The iron-rich nuclei show in susceptibility and hardly in a T1-weighted image, so a template without a susceptibility
map cannot guide registration where it matters most. An atlas in its space says where the nuclei are, and adults
resemble each other in what their susceptibility is: every region whose name tells its tissue is given that of the
brain of the reconstruction challenge (Marques 2021, doi:10.1002/mrm.28716), the rest of the brain is 0. The subthalamic
nucleus, which that brain lacks, is given the value of the red nucleus, the striatum one between caudate nucleus and
putamen. Registration compares by local correlation, to which the contrast of neighbours matters and the value itself
does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.interfaces import registration as reg
from qsmxt.interfaces.regions import read_regions
from qsmxt.interfaces.registration import Volume

#: Words that name a tissue, and its susceptibility, ppm.
TISSUES: tuple[tuple[frozenset[str], float], ...] = tuple(
    (frozenset(words.split()), chi)
    for words, chi in (
        ("pallidum globus gp gpe gpi", 0.131),
        ("nigra sn snc snr", 0.111),
        ("red rn", 0.100),
        ("subthalamic stn sth", 0.100),
        ("dentate dn", 0.152),
        ("caudate caud ca cd", 0.044),
        ("putamen put pu", 0.038),
        ("striatum str", 0.041),
        ("thalamus thal tha th", 0.020),
        ("white wm", -0.030),
        ("cortex ctx", 0.020),
        ("ventricle vent csf", 0.019),
    )
)

#: How many of them, from the first, are deep grey matter.
_DEEP = 9

#: Words beside which the others mean something else.
_OTHER = frozenset({"gyrus", "hippocampus", "fornix"})

#: Susceptibility above which a tissue guides registration; fewer than two such regions make no channel.
_IRON, _FEWEST = 0.035, 2

#: Width of the smoothing that makes the borders those of an image, mm (standard deviation).
_BLUR = 0.8


def normative_chi(name: str) -> float | None:
    """Susceptibility (ppm) of the region ``name``, ``None`` if the name does not tell.

    >>> [normative_chi(name) for name in ("Left-Pallidum", "GPe_R", "RN-l", "dentate gyrus", "ctx-lh-insula", "AMY")]
    [0.131, 0.131, 0.1, None, 0.02, None]
    """
    tissue = _tissue(name)
    return None if tissue is None else TISSUES[tissue][1]


def is_deep(name: str) -> bool:
    """Whether the region ``name`` is deep grey matter.

    >>> [is_deep(name) for name in ("Left-Thalamus", "STN_R", "ctx-lh-insula", "fornix")]
    [True, True, False, False]
    """
    tissue = _tissue(name)
    return tissue is not None and tissue < _DEEP


def _tissue(name: str) -> int | None:
    """Place in the list of tissues of the one that a name tells."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    if words & _OTHER:
        return None
    return next((place for place, (known, _) in enumerate(TISSUES) if words & known), None)


def deep_nuclei(atlases: Sequence[Mapping[str, Any]]) -> Volume | None:
    """Where the atlases have deep grey matter, on the grid of the first one that has any; ``None`` if none has."""
    for atlas in atlases:
        regions = read_regions(Path(atlas["table"]) if atlas["table"] else None)
        deep = [region.index for region in regions if is_deep(region.name)]
        labels = reg.read_volume(atlas["labels"])
        inside = np.isin(labels.array, deep)
        if inside.any():
            return labels.with_array(inside)
    return None


def synthetic_chi(atlases: Sequence[Mapping[str, Any]]) -> Volume | None:
    """Susceptibility of the template of ``atlases`` (``labels`` and ``table``, paths), ppm, on the grid of the first.

    The first atlas that names the tissue of a voxel counts. ``None`` if fewer than two iron-rich regions are known.
    """
    from scipy.ndimage import gaussian_filter

    painted: Volume | None = None
    iron = 0
    for atlas in atlases:
        labels = reg.read_volume(atlas["labels"])
        regions = read_regions(Path(atlas["table"]) if atlas["table"] else None)
        known = {region.index: chi for region in regions if (chi := normative_chi(region.name)) is not None}
        if painted is None:
            painted = labels.with_array(np.full(labels.array.shape, np.nan, dtype=np.float32))
        elif labels.array.shape != painted.array.shape or not np.allclose(labels.affine, painted.affine, atol=1e-3):
            labels = painted.with_array(
                np.rint(reg.resample(labels, painted, [], interpolation="nearestNeighbor")).astype(np.int32)
            )
        for index in set(np.unique(labels.array).tolist()) & known.keys():
            painted.array[(labels.array == index) & np.isnan(painted.array)] = known[index]
            iron += known[index] > _IRON
    if painted is None or iron < _FEWEST:
        return None
    values = np.nan_to_num(painted.array, nan=0.0)
    blurred: np.ndarray = gaussian_filter(values, [_BLUR / size for size in painted.voxel_size])
    return painted.with_array(blurred)
