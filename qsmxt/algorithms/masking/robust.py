"""Where there is signal: a robust threshold above the noise, smoothed and filled.

The threshold is a fifth of the typical signal or five times the noise, whichever is higher; see
:func:`qsmxt.algorithms.signal.signal_mask`. The result is the whole object (head with scalp and neck, body,
phantom) and assumes nothing about its shape.

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
    cost=Cost(bytes_per_voxel=12, seconds_per_megavoxel=0.1),
)
def robust(
    image: np.ndarray,
    grid: Grid,
    parameters: RobustParameters = RobustParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Bool mask of the voxels of ``image`` ``(x, y, z)`` with signal, cavities filled.

    Raises
    ------
    InputError
        If no voxel is positive.
    """
    grid.check("mask_input", image)
    return signal_mask(image, grid)
