r"""Cerebrospinal fluid of the ventricles, told from tissue by its slow decay, as a reference of susceptibility.

With the first and the last echo, smoothed with a Gaussian of 2 mm full width at half maximum, a voxel is fluid if

.. math:: R(r) = \frac{\ln S_1(r) - \ln S_n(r)}{T_{E,n} - T_{E,1}} < a\,\tilde R ,

with a the ``level`` and the median :math:`\tilde R` of R (1/s) over the mask ``depth`` mm and more below its surface,
where fluid is looked for. Of the groups of fluid that touch each other by their faces, the three largest are kept that
reach into a sphere of 30 mm about the centroid of the mask.

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
from qsmxt.algorithms.masking.peel import smoothed
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Radius of the sphere about the centroid, mm.
RADIUS = 30.0
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
    """Fluid of the ventricles; see the module.

    Parameters
    ----------
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``.
    echo_times
        Echo times, s, float ``(echo,)``, ascending, at least two.
    mask
        Brain, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`VentriclesParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``, within the mask; empty if there is no fluid.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, there are fewer than two echoes, times are not ascending and
        above 0, or the mask is empty or not of 0 and 1.

    Examples
    --------
    A sphere of the phantom becomes fluid, which decays with 4/s. The smoothing blurs it at the edge:

    >>> import numpy as np
    >>> from qsmxt.algorithms.masking.ventricles import VentriclesParameters, ventricles
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> fluid = head.labels == 2
    >>> decay = np.exp(-4 * head.echo_times)[:, None, None, None]
    >>> magnitude = np.where(fluid, decay, head.magnitude).astype(np.float32)
    >>> found = ventricles(magnitude, head.echo_times, head.mask, head.grid, VentriclesParameters(depth=4))
    >>> bool((found <= fluid).all()), bool(found.sum() > 0.5 * fluid.sum())
    (True, True)
    """
    times = check_times(echo_times, at_least=2, remedy="give a mask of the fluid instead")
    magnitude = check_echoes("magnitude", magnitude, grid, times)
    mask = checked_mask(mask, grid)
    first, last = (smoothed(np.nan_to_num(magnitude[echo], posinf=0.0, neginf=0.0), grid) for echo in (0, -1))
    deep = morphology.depth(mask, grid, parameters.depth + 2 * max(grid.voxel_size)) > np.float32(parameters.depth)
    deep &= (first > 0) & (last > 0)
    if not deep.any():
        return deep
    decay = np.zeros(grid.shape, dtype=np.float32)
    decay[deep] = np.log(first[deep] / last[deep])
    limit = np.float32(parameters.level) * np.median(decay[deep])
    return _central(deep & (decay < limit), mask, grid)


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
