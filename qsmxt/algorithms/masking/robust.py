r"""Where there is signal: a robust threshold above the noise, smoothed and filled.

.. math:: M = \mathrm{fill}\,\mathrm{smooth}\,\{ r : I(r) > \max(\tfrac15 s,\; 5 n) \} ,

with s the typical signal and n the mean of the lowest voxels; see :func:`qsmxt.algorithms.signal.signal_mask`. The
result is the whole object (head with scalp and neck, body, phantom) and assumes nothing about its shape.

References
----------
Eckstein et al. 2021 (doi:10.1016/j.neuroimage.2021.118175), whose robust mask it follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.signal import signal_mask
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method


@dataclass(frozen=True)
class RobustParameters:
    """:func:`robust` has no parameters."""


@method(
    stage="masking",
    key="robust",
    title="Robust signal mask",
    consumes=("mask_input",),
    produces=("mask",),
    parameters=RobustParameters,
    references=("eckstein2021",),
    sentence="A mask was made of all voxels with signal.",
    cost=Cost(bytes_per_voxel=10, seconds_per_megavoxel=0.1),
)
def robust(
    image: np.ndarray,
    grid: Grid,
    parameters: RobustParameters = RobustParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Bool mask of the voxels of ``image`` with signal, cavities filled; see the module.

    Parameters
    ----------
    image
        Image to look at (``mask_input``), arbitrary unit, float32 ``(x, y, z)``; what is not finite is outside the
        mask.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`RobustParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: where there is signal, cavities filled.

    Raises
    ------
    InputError
        If the shape is not that of the grid, or no voxel is positive.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.plausibility import dice
    >>> from qsmxt.algorithms.masking.robust import robust
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> mask = robust(head.mask_input, head.grid)
    >>> round(dice(mask, head.mask), 2)
    0.98
    """
    grid.check("mask_input", image)
    return signal_mask(image, grid)
