r"""Taking the harmonic part out of a total field before background sources are sought together with the map.

A field that is harmonic in the mask is one of sources outside it. Where those are free in a model, subtracting it does
not move the solution but spares a solver most of its work. What is left is zero on the rim of the mask, which gets
no weight.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.dirichlet import harmonic_continuation
from qsmxt.algorithms.domain import Domain, masked
from qsmxt.errors import InputError
from qsmxt.geometry import Grid


def without_harmonic(
    total_field: np.ndarray, mask: np.ndarray, grid: Grid, padding: float
) -> tuple[Domain, np.ndarray]:
    """The field less its harmonic continuation from the rim, cropped with ``padding`` (mm), and the inner mask."""
    crop = Crop.around(mask, grid)
    field = crop.restore(masked("total_field", total_field, mask, crop))
    harmonic, interior = harmonic_continuation(field, mask, grid, tolerance=1e-4)
    return Domain.around("total_field", field - harmonic, mask, grid, padding=padding), checked_interior(interior)


def from_laplacian(laplacian: np.ndarray, mask: np.ndarray, grid: Grid, padding: float) -> tuple[Domain, np.ndarray]:
    """The same from the Laplacian of a field (ppm/mm^2), which is all that a wrapped phase tells for sure."""
    crop = Crop.around(mask, grid)
    sources = crop.restore(masked("laplacian", laplacian, mask, crop))
    zero = np.zeros(grid.shape, dtype=np.float32)
    field, interior = harmonic_continuation(zero, mask, grid, tolerance=1e-4, laplacian=sources)
    return Domain.around("laplacian", field, mask, grid, padding=padding), checked_interior(interior)


def checked_interior(interior: np.ndarray) -> np.ndarray:
    """``interior`` unless it is empty."""
    if not interior.any():
        raise InputError(
            "mask: expected a mask at least three voxels wide along every axis, found no voxel inside its rim; "
            "use background removal and another inversion"
        )
    return interior
