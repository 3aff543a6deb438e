r"""No referencing: the map keeps the offset that the inversion gave it.

.. math:: \chi_{ref} = \chi \quad\text{in the mask} .

No source: nothing is done.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.referencing.offset import checked_chi
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method


@dataclass(frozen=True)
class NoneParameters:
    """:func:`none` has no parameters."""


@method(
    stage="referencing",
    key="none",
    title="No reference",
    consumes=("chi", "mask"),
    produces=("chi", "reference_offset"),
    parameters=NoneParameters,
    sentence="Susceptibility was not referenced to a region.",
    cost=Cost(bytes_per_voxel=8, seconds_per_megavoxel=0.02),
    linear=True,
)
def none(
    chi: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: NoneParameters = NoneParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Referenced susceptibility (ppm) and what was subtracted (ppm); see the module.

    Parameters
    ----------
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Where there is a map, bool ``(x, y, z)``.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`NoneParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.
    reference_offset
        Zero, ppm, float32 ``()``.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, the susceptibility has NaN or Inf in
        it.

    Examples
    --------
    >>> from qsmxt.algorithms.referencing.none import none
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi, offset = none(head.chi, head.mask, head.grid)
    >>> bool((chi == head.chi).all()), float(offset)
    (True, 0.0)
    """
    chi, mask = checked_chi(chi, mask, grid)
    return np.where(mask, chi, 0).astype(np.float32), np.zeros((), dtype=np.float32)
