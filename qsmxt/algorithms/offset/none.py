"""No offset removal: the phase offset stays in the phase.

For a single echo nothing else is possible. The offset is smooth, so that most of it is removed with the background
field; it does spoil the mean over echoes (``weighted_fit``) and unwrapping in time (ROMEO's template mode).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method


@dataclass(frozen=True)
class NoneParameters:
    """:func:`none` has no parameters."""


@method(
    stage="offset",
    key="none",
    title="No offset removal",
    consumes=("wrapped_phase",),
    produces=("offset_free_phase", "phase_offset"),
    parameters=NoneParameters,
    sentence="Phase offsets were not removed.",
    cost=Cost(bytes_per_voxel=20, threads=1, seconds_per_megavoxel=0.01),
)
def none(
    wrapped_phase: np.ndarray,
    grid: Grid,
    parameters: NoneParameters = NoneParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the phase (rad, float32 ``(echo, x, y, z)``; 0 where it is not finite) and an offset of zero.

    Raises
    ------
    InputError
        If the phase has no echo axis or does not lie on the grid.
    """
    if wrapped_phase.ndim != 4:
        raise InputError(f"wrapped_phase: expected (echo, x, y, z), found shape {wrapped_phase.shape}")
    grid.check("wrapped_phase", wrapped_phase, echoes=wrapped_phase.shape[0])
    kept = np.array(wrapped_phase, dtype=np.float32, order="C")
    kept[~np.isfinite(kept)] = 0
    return kept, np.zeros(grid.shape, dtype=np.float32)
