r"""Erosion: a voxel stays if a ball of ``radius`` about it lies in the mask.

.. math:: M' = M \ominus B_\rho = \{ r : \min_{s \notin M} \lVert r - s \rVert > \rho \} ,

with the distance between the centres of voxels and :math:`\rho` the ``radius``, both in mm. The edge of the field of
view does not erode: what lies beyond it counts as mask, so a slab keeps its first slices.

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
class ErodeParameters:
    """Parameters of :func:`erode`."""

    radius: float = parameter(1.0, unit="mm", above=0, at_most=100, help="by how much the mask shrinks")


@method(
    stage="masking",
    key="erode",
    title="Erosion",
    consumes=("mask",),
    produces=("mask",),
    parameters=ErodeParameters,
    sentence="The mask was eroded by {radius:g} mm.",
    cost=Cost(bytes_per_voxel=7.5, seconds_per_megavoxel=0.05),
)
def erode(
    mask: np.ndarray, grid: Grid, parameters: ErodeParameters = ErodeParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask of the voxels of ``mask`` further than ``radius`` from its outside; see the module.

    Parameters
    ----------
    mask
        Mask to change, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`ErodeParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: the inside of the mask; it may be empty.

    Raises
    ------
    InputError
        If the shape is not that of the grid.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.erode import ErodeParameters, erode
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> smaller = erode(head.mask, head.grid, ErodeParameters(radius=4))
    >>> [int(mask[:, 11, 9].sum()) for mask in (head.mask, smaller)]  # voxels of 2 mm on a line through the middle
    [16, 12]
    """
    grid.check("mask", mask)
    return morphology.erode(mask, grid, parameters.radius, border=True)
