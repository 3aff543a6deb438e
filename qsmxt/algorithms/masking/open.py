r"""Opening: parts of the mask that no ball of ``radius`` inside it can reach are removed.

.. math:: M' = (M \ominus B_\rho) \oplus B_\rho ,

the erosion with a ball of ``radius`` :math:`\rho` (mm) and then the dilation with it. The edge of the field of view
counts as mask.

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
class OpenParameters:
    """Parameters of :func:`open`."""

    radius: float = parameter(2.0, unit="mm", above=0, at_most=100, help="radius of the ball")


@method(
    stage="masking",
    key="open",
    title="Opening",
    consumes=("mask",),
    produces=("mask",),
    parameters=OpenParameters,
    sentence="The mask was opened with a ball of {radius:g} mm.",
    cost=Cost(bytes_per_voxel=9.7, seconds_per_megavoxel=0.05),
)
def open(
    mask: np.ndarray, grid: Grid, parameters: OpenParameters = OpenParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask within ``mask``, thin parts removed; see the module.

    Parameters
    ----------
    mask
        Mask to change, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`OpenParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: the mask without its thin parts; it may be empty.

    Raises
    ------
    InputError
        If the shape is not that of the grid.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.open import open
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> mask = head.mask
    >>> mask[1, 1, 1] = True  # a spot in air
    >>> opened = open(mask, head.grid)
    >>> bool(opened[1, 1, 1]), bool((opened <= head.mask).all())
    (False, True)
    """
    grid.check("mask", mask)
    return morphology.opening(mask, grid, parameters.radius)
