r"""Harmonic continuation: the Laplace or Poisson equation inside a mask with given values on its outermost voxels.

.. math:: \nabla^2 u = q \;\text{in the interior}, \qquad u = f \;\text{on the boundary}.

A voxel of the mask is interior if all its six neighbours lie in the mask; the others are the boundary. Solved for
:math:`f - u`, which is zero on the boundary, by :mod:`qsmxt.algorithms.background.multigrid`.

References: Zhou et al. 2014 (doi:10.1002/nbm.3064).
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.background import multigrid
from qsmxt.algorithms.background.lbv import without_boundary
from qsmxt.algorithms.cropping import Crop
from qsmxt.geometry import Grid


def harmonic_continuation(
    field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    *,
    tolerance: float = 1e-5,
    iterations: int = 100,
    laplacian: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Function inside ``mask`` with the boundary values of ``field``, and the interior of the mask.

    Parameters
    ----------
    field
        Float32 volume, finite in the mask; its unit is that of the result.
    mask
        Bool volume, not empty.
    grid
        Sampling of both.
    tolerance
        Residual relative to that of the start (``field`` inside) at which iteration stops.
    iterations
        Most iterations.
    laplacian
        q, unit of the field per mm^2; ``None`` for a harmonic function.

    Returns
    -------
    tuple
        The continuation, float32, equal to ``field`` on the boundary and zero outside the mask; the interior, bool.

    Examples
    --------
    A harmonic polynomial is its own continuation:

    >>> import numpy as np
    >>> x, y, z = np.meshgrid(*[np.arange(-8.0, 9)] * 3, indexing="ij")
    >>> mask = x**2 + y**2 + z**2 < 50
    >>> f = (x * y + 2 * z**2 - x**2 - y**2).astype(np.float32)
    >>> u, inside = harmonic_continuation(f, mask, Grid(f.shape))
    >>> bool(np.abs(u - f)[mask].max() < 1e-3)
    True
    """
    inside = interior(mask)
    out = np.where(mask, field, np.float32(0)).astype(np.float32)
    if not inside.any():
        return out, inside
    crop = Crop.around(mask, grid, padding=2 * max(grid.voxel_size))
    kept = crop.extract(inside)
    right = multigrid.negative_laplacian(crop.extract(out), kept, grid.voxel_size)
    if laplacian is not None:
        right += np.where(kept, crop.extract(np.asarray(laplacian, dtype=np.float32)), np.float32(0))
    correction, _ = multigrid.solve(right, kept, grid.voxel_size, tolerance=tolerance, iterations=iterations)
    return out - crop.restore(correction), inside


def interior(mask: np.ndarray) -> np.ndarray:
    """Voxels of ``mask`` all six neighbours of which lie in it; the border of the volume is outside."""
    return without_boundary(mask)
