r"""Largest component: of the pieces that are connected through faces, the one with most voxels stays.

.. math:: M' = \arg\max_C |C| , \qquad C \text{ the connected components of } M .

References
----------
Rosenfeld and Pfaltz 1966 (doi:10.1145/321356.321357).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method


@dataclass(frozen=True)
class LargestParameters:
    """:func:`largest` has no parameters."""


@method(
    stage="masking",
    key="largest",
    title="Largest component",
    consumes=("mask",),
    produces=("mask",),
    parameters=LargestParameters,
    sentence="The largest connected component was kept.",
    cost=Cost(bytes_per_voxel=1.3, threads=1, seconds_per_megavoxel=0.03),
)
def largest(
    mask: np.ndarray,
    grid: Grid,
    parameters: LargestParameters = LargestParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Bool mask of the largest piece of ``mask``; see the module.

    Parameters
    ----------
    mask
        Mask to change, bool ``(x, y, z)``.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`LargestParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: the largest piece, the first in scan order of equals; empty if the mask is.

    Raises
    ------
    InputError
        If the shape is not that of the grid.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.largest import largest
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> mask = head.mask
    >>> mask[1, 1, 1] = True  # a spot in air
    >>> bool((largest(mask, head.grid) == head.mask).all())
    True
    """
    grid.check("mask", mask)
    return morphology.largest_component(mask)
