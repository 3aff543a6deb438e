r"""The mean susceptibility of a region, which becomes the zero of a referenced map.

A field tells susceptibility only up to a constant, so a map is given relative to a region. The mean is taken over the
voxels of the region within 1 ppm of its median (no calcification, haemorrhage or vein), between two percentiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.domain import checked_mask
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

#: Distance from the median of the region above which a voxel does not count, ppm.
FARTHEST = 1.0


@dataclass(frozen=True)
class Offset:
    """Statistics of the reference region before referencing.

    Attributes
    ----------
    mean, sd
        Mean, which is subtracted, and standard deviation of the voxels that count, ppm.
    voxels
        Number of voxels that count.
    """

    mean: float
    sd: float
    voxels: int


def offset_of(
    chi: np.ndarray, region: np.ndarray, *, percentiles: tuple[float, float] = (1.0, 99.0), name: str = "mask"
) -> Offset:
    """Offset of ``chi`` (ppm) in ``region`` (bool), called ``name`` in messages.

    Raises
    ------
    InputError
        If the region is empty or holds NaN or Inf.

    >>> offset_of(np.array([[[1.0, 1.5, 2.0, 50.0]]]), np.ones((1, 1, 4), bool), percentiles=(0, 100)).mean
    1.5
    """
    values = np.asarray(chi, dtype=np.float64)[region]
    if values.size == 0:
        raise InputError(
            f"{name}: expected voxels of the reference region inside the mask, found none; "
            "check the region or use another reference"
        )
    if not np.isfinite(values).all():
        raise InputError(f"chi: expected finite values in the reference region ({name}), found NaN or Inf")
    values = values[np.abs(values - np.median(values)) <= FARTHEST]
    low, high = np.percentile(values, percentiles)
    values = values[(values >= low) & (values <= high)]
    return Offset(float(values.mean()), float(values.std()), int(values.size))


def checked_chi(chi: np.ndarray, mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """``chi`` and ``mask`` (bool) if both lie on the grid and ``chi`` is finite in the mask."""
    mask = checked_mask(mask, grid)
    grid.check("chi", chi)
    if not np.isfinite(chi[mask]).all():
        raise InputError("chi: expected finite values in the mask, found NaN or Inf; take them out of the mask")
    return chi, mask


def subtract(chi: np.ndarray, mask: np.ndarray, offset: Offset) -> tuple[np.ndarray, np.ndarray]:
    """``chi`` less the offset in the mask, zero outside, float32; and what was subtracted, an array of one number."""
    return np.where(mask, chi - offset.mean, 0).astype(np.float32), np.array(offset.mean, dtype=np.float32)
