"""Arrays to small NIfTI files that a page holds: cut to the mask, at most some million voxels, whole numbers.

Axes run to the subject's right, front and top, as far as voxel axes allow, and all volumes of a unit lie on one grid,
so that what shows them needs no geometry of its own. A value is the stored number times the step of its map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from qsmxt.bids.compression import compress
from qsmxt.bids.images import file_content

#: Of their names: they are for the page alone and no maps to compute with.
EXTENSION = ".slices.gz"

#: Most voxels of a volume: a head at 1 mm is shown as it is, a finer one by the means of neighbouring voxels.
MOST_VOXELS = 5_000_000

#: Width of the band of voxels kept around the mask, mm.
MARGIN = 6.0

#: Grey levels of a map without a unit.
LEVELS = 127


@dataclass(frozen=True)
class Frame:
    """The part of a grid that is shown, on axes that run to the right, the front and the top.

    Attributes
    ----------
    box
        Voxels that are kept.
    factors
        Voxels that are taken together along every axis.
    """

    box: tuple[slice, slice, slice]
    factors: tuple[int, int, int]

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {"box": [[part.start, part.stop] for part in self.box], "factors": list(self.factors)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Frame:
        """Of what :meth:`to_dict` made."""
        first, second, third = (slice(int(start), int(stop)) for start, stop in values["box"])
        across, along, up = (int(factor) for factor in values["factors"])
        return cls((first, second, third), (across, along, up))


def frame(mask: np.ndarray, affine: np.ndarray, most: int = MOST_VOXELS) -> Frame:
    """What is shown of the grid of ``mask`` (bool, shape ``(x, y, z)``) with ``affine``: its box with a margin."""
    inside, sizes = _turned(mask, affine), voxel_sizes(_turned_affine(affine, mask.shape))
    box, shape = [], []
    for axis, length in enumerate(inside.shape):
        filled = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(MARGIN / sizes[axis]))
        first, last = (int(filled[0]), int(filled[-1])) if filled.size else (0, length - 1)
        box.append(slice(max(0, first - margin), min(length, last + 1 + margin)))
        shape.append(box[-1].stop - box[-1].start)
    factors = [1, 1, 1]
    while np.prod([-(-n // f) for n, f in zip(shape, factors, strict=True)]) > most:
        factors[int(np.argmin([size * f for size, f in zip(sizes, factors, strict=True)]))] += 1
    return Frame((box[0], box[1], box[2]), (factors[0], factors[1], factors[2]))


def map_volume(
    array: np.ndarray, affine: np.ndarray, shown: Frame, step: float | None, mask: np.ndarray | None = None
) -> bytes:
    """A map as a compressed NIfTI file.

    Parameters
    ----------
    array
        The map, shape ``(x, y, z)``.
    affine
        Of its grid.
    shown
        What is kept of it.
    step
        Unit of the whole numbers; ``None``: 127 grey levels up to above the 99.9th percentile.
    mask
        Voxels outside are set to 0: noise does not compress.
    """
    from qsmxt.algorithms.quantiles import quantile

    kept = _cut(array, affine, shown)
    if mask is not None:
        kept = np.where(_cut(mask, affine, shown), kept, kept.dtype.type(0))
    values = _means(kept, shown.factors)
    if step is None:
        top = quantile(values, 0.999) * 1.2
        step = (top if top > 0 else 1.0) / LEVELS
        return _file(np.clip(np.rint(values / step), 0, LEVELS).astype(np.uint8), affine, array.shape, shown, step)
    bound = np.iinfo(np.int16).max
    whole = values / np.float32(step)
    whole[np.isnan(whole)] = 0
    np.clip(np.rint(whole, out=whole), -bound, bound, out=whole)
    return _file(whole.astype(np.int16), affine, array.shape, shown, step)


def label_volume(labels: np.ndarray, affine: np.ndarray, shown: Frame) -> bytes:
    """Labels, whole numbers of shape ``(x, y, z)``, as a compressed NIfTI file; one voxel of several is taken."""
    kept = _cut(labels, affine, shown)
    kept = kept[tuple(slice((factor - 1) // 2, None, factor) for factor in shown.factors)]
    top = int(kept.max(initial=0))
    return _file(kept.astype(np.uint8 if top < 256 else np.int16), affine, labels.shape, shown, 1.0, labels=True)


def _turned(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The array with its axes to the right, the front and the top; nothing is copied."""
    turned: np.ndarray = apply_orientation(array, io_orientation(affine))
    return turned


def _turned_affine(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    turned: np.ndarray = affine @ inv_ornt_aff(io_orientation(affine), shape)
    return turned


def _cut(array: np.ndarray, affine: np.ndarray, shown: Frame) -> np.ndarray:
    return _turned(array, affine)[shown.box]


def _means(array: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Means over blocks; the last block of an axis is filled with its last voxel."""
    if factors == (1, 1, 1):
        return array
    room = [(0, -length % factor) for length, factor in zip(array.shape, factors, strict=True)]
    whole = np.pad(array.astype(np.float32), room, mode="edge")
    split = [part for length, factor in zip(whole.shape, factors, strict=True) for part in (length // factor, factor)]
    means: np.ndarray = whole.reshape(split).mean(axis=(1, 3, 5))
    return means


def _file(
    array: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], shown: Frame, step: float, *, labels: bool = False
) -> bytes:
    """The file; its affine is that of the part which is shown."""
    turned = _turned_affine(affine, shape)
    scaled = turned.copy()
    scaled[:3, :3] = turned[:3, :3] * shown.factors
    corner = [part.start + (factor - 1) / 2 for part, factor in zip(shown.box, shown.factors, strict=True)]
    scaled[:3, 3] = turned[:3, :3] @ corner + turned[:3, 3]
    image = nibabel.Nifti1Image(array, scaled)
    image.header.set_slope_inter(step, 0.0)
    image.header.set_xyzt_units("mm")
    if labels:
        image.header.set_intent("label", name="labels")
    return compress(file_content(image))
