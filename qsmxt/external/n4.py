r"""Correction of inhomogeneity by N4 (antspyx).

The image is modelled as :math:`I = U\,\beta` with a bias :math:`\beta` of cubic B-splines that makes the histogram
of U as narrow as possible. Slower than :mod:`qsmxt.algorithms.masking.homogeneity` (about 15 CPU seconds for a head
of 1 mm).

References
----------
Tustison et al. 2010 (doi:10.1109/TMI.2010.2046908).
"""

from __future__ import annotations

import os

import numpy as np

from qsmxt.errors import MissingProgramError
from qsmxt.geometry import Grid


def n4(image: np.ndarray, mask: np.ndarray, grid: Grid, *, shrink: int = 4) -> np.ndarray:
    """Image with the bias divided out, float32; the mean inside the mask is kept.

    Parameters
    ----------
    image
        Magnitude or T1-weighted volume ``(x, y, z)``.
    mask
        Where the bias is estimated, bool.
    grid
        Geometry.
    shrink
        Factor by which the image is coarsened for the estimation; axes too short for it are not coarsened.

    Raises
    ------
    MissingProgramError
        If antspyx is not installed.
    """
    grid.check("image", image)
    grid.check("mask", mask)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # what is computed must not depend on their number
    try:
        import ants
    except ImportError:
        raise MissingProgramError("N4: antspyx is not installed; pip install antspyx, or use homogeneity") from None
    values = np.ascontiguousarray(image, dtype=np.float32)
    volume = ants.from_numpy(values, spacing=grid.voxel_size)
    region = ants.from_numpy(np.ascontiguousarray(mask, dtype=np.float32), spacing=grid.voxel_size)
    factor = max(1, min(shrink, min(grid.shape) // 4))
    bias = ants.n4_bias_field_correction(volume, mask=region, shrink_factor=factor, return_bias_field=True).numpy()
    corrected = values / np.maximum(bias, np.float32(1e-6))
    inside = np.asarray(mask, dtype=bool)
    return corrected * np.float32(values[inside].mean(dtype=np.float64) / corrected[inside].mean(dtype=np.float64))
