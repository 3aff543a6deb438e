r"""Closing: gaps that no ball of ``radius`` outside the mask can enter are filled.

.. math:: M' = (M \oplus B_\rho) \ominus B_\rho ,

the dilation with a ball of ``radius`` :math:`\rho` (mm) and then the erosion with it. Beyond the field of view there is
no mask, so nothing is closed against its edge.

References
----------
Haralick, Sternberg and Zhuang 1987 (doi:10.1109/TPAMI.1987.4767941).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class CloseParameters:
    """Parameters of :func:`close`."""

    radius: float = parameter(2.0, unit="mm", above=0, at_most=100, help="radius of the ball")


@method(
    stage="masking",
    key="close",
    title="Closing",
    consumes=("mask",),
    produces=("mask",),
    parameters=CloseParameters,
    sentence="The mask was closed with a ball of {radius:g} mm.",
    cost=Cost(bytes_per_voxel=11, seconds_per_megavoxel=0.05),
)
def close(
    mask: np.ndarray, grid: Grid, parameters: CloseParameters = CloseParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask that contains ``mask``, narrow gaps filled; see the module.

    Parameters
    ----------
    mask
        Mask to change, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`CloseParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: the mask and its narrow gaps.

    Raises
    ------
    InputError
        If the shape is not that of the grid.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.close import close
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> mask = head.mask
    >>> mask[10, 11, 9] = False  # a hole
    >>> bool((close(mask, head.grid) == head.mask).all())
    True
    """
    grid.check("mask", mask)
    return morphology.closing(mask, grid, parameters.radius)
