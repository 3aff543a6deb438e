r"""Dilation: every voxel within ``radius`` of the mask joins it.

.. math:: M' = M \oplus B_\rho = \{ r : \min_{s \in M} \lVert r - s \rVert \le \rho \} ,

with the distance between the centres of voxels and :math:`\rho` the ``radius``, both in mm.

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
class DilateParameters:
    """Parameters of :func:`dilate`."""

    radius: float = parameter(1.0, unit="mm", above=0, at_most=100, help="by how much the mask grows")


@method(
    stage="masking",
    key="dilate",
    title="Dilation",
    consumes=("mask",),
    produces=("mask",),
    parameters=DilateParameters,
    sentence="The mask was dilated by {radius:g} mm.",
    cost=Cost(bytes_per_voxel=9, seconds_per_megavoxel=0.05),
)
def dilate(
    mask: np.ndarray, grid: Grid, parameters: DilateParameters = DilateParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask of the voxels within ``radius`` of ``mask``; see the module.

    Parameters
    ----------
    mask
        Mask to change, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`DilateParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: the mask and what surrounds it.

    Raises
    ------
    InputError
        If the shape is not that of the grid.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.dilate import DilateParameters, dilate
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> larger = dilate(head.mask, head.grid, DilateParameters(radius=4))
    >>> [int(mask[:, 11, 9].sum()) for mask in (head.mask, larger)]  # voxels of 2 mm on a line through the middle
    [16, 20]
    """
    grid.check("mask", mask)
    return morphology.dilate(mask, grid, parameters.radius)
