r"""Smoothing: the mask is blurred and cut at one half,

.. math:: M' = \{ G_\sigma * M > \tfrac12 \} ,

which leaves flat surfaces where they are, rounds edges and removes what is thinner than about :math:`\sigma`.
Beyond the edge of the field of view the mask continues as at the edge. :math:`\sigma` is ``sigma`` (mm).
No source: a common filter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class SmoothParameters:
    """Parameters of :func:`smooth`."""

    sigma: float = parameter(1.5, unit="mm", above=0, at_most=50, help="standard deviation of the blur")


@method(
    stage="masking",
    key="smooth",
    title="Smoothing",
    consumes=("mask",),
    produces=("mask",),
    parameters=SmoothParameters,
    sentence="The mask was smoothed with a Gaussian of {sigma:g} mm.",
    cost=Cost(bytes_per_voxel=8, threads=1, seconds_per_megavoxel=0.1),
)
def smooth(
    mask: np.ndarray, grid: Grid, parameters: SmoothParameters = SmoothParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask whose surface is smoother than that of ``mask``; see the module.

    Parameters
    ----------
    mask
        Mask to change, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`SmoothParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: where the blurred mask is above one half; it may be empty.

    Raises
    ------
    InputError
        If the shape is not that of the grid.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.smooth import smooth
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> mask = head.mask
    >>> mask[1, 1, 1] = True  # a spot in air
    >>> bool((smooth(mask, head.grid) == head.mask).all())
    True
    """
    grid.check("mask", mask)
    widths = [parameters.sigma / v for v in grid.voxel_size]
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), widths, mode="nearest", truncate=3.0)
    return blurred > np.float32(0.5)
