"""Histograms of images for thresholds: finite, non-zero voxels only, bins of equal width."""

from __future__ import annotations

import numpy as np

from qsmxt.errors import InputError

#: Number of voxels from which histograms are made (every n-th voxel of larger volumes).
SAMPLE = 1_000_000


def samples(image: np.ndarray, *, zeros: bool = False) -> np.ndarray:
    """Finite voxels, at most about a million, evenly taken, float64; exact zeros (no data) only if asked for.

    Raises
    ------
    InputError
        If no voxel is left or all have the same value.
    """
    flat = image.reshape(-1)
    values = flat[:: max(1, flat.size // SAMPLE)].astype(np.float64)
    values = values[np.isfinite(values)]
    if not zeros:
        values = values[values != 0]
    if values.size == 0 or values.min() == values.max():
        found = "no finite non-zero voxel" if values.size == 0 else f"{values[0]:g} everywhere"
        raise InputError(f"mask_input: expected an image with contrast, found {found}; choose another input")
    return values


def counts(values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of values in every bin between their minimum and maximum, and the centres of the bins."""
    number, edges = np.histogram(values, bins=bins)
    return number.astype(np.float64), 0.5 * (edges[:-1] + edges[1:])


def above(image: np.ndarray, threshold: float) -> np.ndarray:
    """Bool volume of the voxels above ``threshold``; NaN is not, +Inf is not."""
    return (image > np.float32(threshold)) & (image < np.inf)
