"""From the samples of the fine grid to voxels: means, dominant tissue, brain mask."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from qsmxt.errors import InputError
from qsmxt.phantom.anatomy import TISSUES

Factors = tuple[int, int, int]

#: Least fraction of brain in a voxel of the brain mask.
BRAIN_FRACTION = 0.9


def block_mean(volume: np.ndarray, factors: Factors) -> np.ndarray:
    """Mean over blocks of ``factors`` samples; complex stays complex, everything else becomes float32."""
    out = volume if np.iscomplexobj(volume) else volume.astype(np.float32, copy=False)
    for axis in (2, 1, 0):
        count = factors[axis]
        parts = [
            out[tuple(slice(i, None, count) if a == axis else slice(None) for a in range(3))] for i in range(count)
        ]
        out = sum(parts[1:], start=parts[0])
    return out * np.float32(1 / math.prod(factors))


def repeat(volume: np.ndarray, factors: Factors) -> np.ndarray:
    """Every voxel as a block of ``factors`` samples."""
    for axis, count in enumerate(factors):
        volume = np.repeat(volume, count, axis=axis)
    return volume


def brain_mask(fraction: np.ndarray) -> np.ndarray:
    """Voxels of at least 90 % brain: largest component, holes filled."""
    parts, count = ndimage.label(fraction >= BRAIN_FRACTION - 1e-6)
    if count == 0:
        raise InputError("voxel_size, field_of_view: expected voxels that lie inside the brain, found none")
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return ndimage.binary_fill_holes(parts == largest)


def dominant_tissue(classes: np.ndarray, factors: Factors) -> tuple[np.ndarray, np.ndarray]:
    """Most frequent tissue of each voxel (the smaller index when two are equal) and the fraction that is not air."""
    best = block_mean(classes == 0, factors)
    labels, not_air = np.zeros(best.shape, dtype=np.uint8), 1 - best
    for tissue in TISSUES[1:]:
        fraction = block_mean(classes == tissue.index, factors)
        better = fraction > best
        labels[better] = tissue.index
        best[better] = fraction[better]
    return labels, not_air
