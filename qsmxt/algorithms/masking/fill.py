r"""Filling of holes: cavities that the outside cannot reach through faces.

.. math:: M' = M \cup \bigcup \{ C : |C|\,v_x v_y v_z \le V \} ,

with C the pieces of the outside that are connected through faces and do not reach the edge of the field of view, and V
the ``volume`` (without it, all). Cavities are found in three dimensions. Filling slice by slice would also close real
openings such as the base of the skull.

References
----------
Rosenfeld and Pfaltz 1966 (doi:10.1145/321356.321357).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class FillParameters:
    """Parameters of :func:`fill`."""

    volume: float | None = parameter(None, unit="ml", above=0, help="largest cavity that is filled; none: all")


@method(
    stage="masking",
    key="fill",
    title="Filling of holes",
    consumes=("mask",),
    produces=("mask",),
    parameters=FillParameters,
    sentence="Holes in the mask were filled.",
    cost=Cost(bytes_per_voxel=1.8, threads=1, seconds_per_megavoxel=0.05),
)
def fill(
    mask: np.ndarray, grid: Grid, parameters: FillParameters = FillParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask with the cavities of ``mask`` up to ``volume`` filled; see the module.

    Parameters
    ----------
    mask
        Mask to change, bool ``(x, y, z)``.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`FillParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: the mask and its cavities.

    Raises
    ------
    InputError
        If the shape is not that of the grid.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.fill import fill
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> mask = head.mask & ~(head.labels == 1)  # a sphere cut out
    >>> bool((fill(mask, head.grid) == head.mask).all())
    True
    """
    grid.check("mask", mask)
    largest = None if parameters.volume is None else int(1000 * parameters.volume / grid.voxel_volume)
    return morphology.fill_holes(mask, largest=largest)
