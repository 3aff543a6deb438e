r"""Cerebrospinal fluid of the ventricles, told from tissue by its slow decay, as a reference of susceptibility.

With the first and the last echo, smoothed with a Gaussian of 2 mm full width at half maximum, a voxel is fluid if

.. math:: R(r) = \frac{\ln S_1(r) - \ln S_n(r)}{T_{E,n} - T_{E,1}} < a\,\tilde R ,

with the median :math:`\tilde R` of R (1/s) over the mask ``depth`` mm and more below its surface, where fluid is looked
for. Of the groups of fluid that touch each other by their faces, the three largest are kept that reach into a sphere of
30 mm about the centroid of the mask.

Departure from the paper: it takes 5/s for the limit. A fraction a of the rate of tissue (16 to 21/s at 3 T) does not
depend on the field strength; 0.28 is the same at 3 T.

References
----------
Liu et al. 2018 (doi:10.1002/mrm.26946).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.algorithms import morphology
from qsmxt.algorithms.domain import checked_mask
from qsmxt.algorithms.echoes import check_echoes, check_times
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Full width at half maximum of the smoothing and radius of the sphere about the centroid, mm.
WIDTH, RADIUS = 2.0, 30.0
#: Most groups that are kept.
GROUPS = 3


@dataclass(frozen=True)
class VentriclesParameters:
    """Parameters of :func:`ventricles`."""

    level: float = parameter(0.28, above=0, below=1, help="fluid decays slower than this fraction of the tissue's rate")
    depth: float = parameter(10.0, unit="mm", at_least=0, at_most=50, help="how far below the surface fluid may lie")


@method(
    stage="masking",
    key="ventricles",
    title="Fluid of the ventricles",
    consumes=("magnitude", "echo_times", "mask"),
    produces=("csf_mask",),
    parameters=VentriclesParameters,
    references=("liu2018medi0",),
    sentence="The fluid of the ventricles was told from tissue by its slow decay ({level} of the rate of tissue).",
    cost=Cost(bytes_per_voxel=34, threads=1, seconds_per_megavoxel=0.1),
)
def ventricles(
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: VentriclesParameters = VentriclesParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Fluid of the ventricles, bool; empty if there is none.

    Parameters
    ----------
    magnitude
        ``(echo, x, y, z)``, any unit.
    echo_times
        ``(echo,)``, s, ascending, at least two.
    mask
        Brain, bool ``(x, y, z)``.
    grid
        Geometry.
    parameters
        See :class:`VentriclesParameters`.
    progress
        Not called: one pass.

    Raises
    ------
    InputError
        If shapes do not fit, there are fewer than two echoes, or the mask is empty.

    Examples
    --------
    >>> grid = Grid((20, 20, 20), (2.0, 2.0, 2.0))
    >>> mask = np.ones(grid.shape, bool)
    >>> rate = np.full(grid.shape, 18.0)
    >>> rate[8:12, 8:12, 8:12] = 4.0
    >>> times = np.array([0.01, 0.02])
    >>> found = ventricles(np.exp(-times[:, None, None, None] * rate), times, mask, grid)
    >>> bool(found[9:11, 9:11, 9:11].all()), bool(found[~(rate < 5)].any())
    (True, False)
    """
    times = check_times(echo_times, at_least=2, remedy="give a mask of the fluid instead")
    magnitude = check_echoes("magnitude", magnitude, grid, times)
    mask = checked_mask(mask, grid)
    first, last = (_smoothed(magnitude[echo], grid) for echo in (0, -1))
    deep = morphology.distance(mask, grid, parameters.depth + 2 * max(grid.voxel_size)) > np.float32(parameters.depth)
    deep &= (first > 0) & (last > 0)
    if not deep.any():
        return deep
    decay = np.zeros(grid.shape, dtype=np.float32)
    decay[deep] = np.log(first[deep] / last[deep])
    limit = np.float32(parameters.level) * np.median(decay[deep])
    return _central(deep & (decay < limit), mask, grid)


def _smoothed(volume: np.ndarray, grid: Grid) -> np.ndarray:
    widths = [WIDTH / (2 * np.sqrt(2 * np.log(2))) / v for v in grid.voxel_size]
    finite = np.nan_to_num(volume, posinf=0.0, neginf=0.0)
    return ndimage.gaussian_filter(finite, widths, truncate=3.0)  # type: ignore[no-any-return]


def _central(fluid: np.ndarray, mask: np.ndarray, grid: Grid) -> np.ndarray:
    """The largest groups of ``fluid`` that come near the centroid of the mask."""
    labels, count = ndimage.label(fluid)
    places = np.nonzero(mask)
    axes = [
        (np.arange(n) - places[axis].mean()) * size
        for axis, (n, size) in enumerate(zip(grid.shape, grid.voxel_size, strict=True))
    ]
    x, y, z = np.ix_(*axes)
    sphere = x * x + y * y + z * z <= RADIUS**2
    near = np.bincount(labels[sphere], minlength=count + 1) > 0
    sizes = np.where(near, np.bincount(labels.ravel(), minlength=count + 1), 0)
    sizes[0] = 0
    kept = np.argsort(-sizes, kind="stable")[:GROUPS]
    return np.isin(labels, kept[sizes[kept] > 0])
