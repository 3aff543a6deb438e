r"""No offset removal: the phase offset stays in the phase.

.. math:: \varphi_e \leftarrow \varphi_e, \qquad \varphi_0 \leftarrow 0 .

For a single echo nothing else is possible. The offset is smooth, so that most of it is removed with the background
field; it does spoil the mean over echoes (``weighted_fit``) and unwrapping in time (ROMEO's template mode).
No source: nothing is done.
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
    cost=Cost(bytes_per_voxel=4, bytes_per_echo=4, threads=1, seconds_per_megavoxel=0.01),
)
def none(
    wrapped_phase: np.ndarray,
    grid: Grid,
    parameters: NoneParameters = NoneParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The phase as it is, and an offset of zero; see the module.

    Parameters
    ----------
    wrapped_phase
        Measured phase, rad, float32 ``(echo, x, y, z)``.
    grid
        Shape; the voxel size does not matter.
    parameters
        Empty, see :class:`NoneParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    offset_free_phase
        The phase, rad, float32 ``(echo, x, y, z)``, everywhere; zero where it is not finite.
    phase_offset
        Zero, rad, float32 ``(x, y, z)``.

    Raises
    ------
    InputError
        If the phase has no echo axis or its shape is not that of the grid.

    Examples
    --------
    >>> from qsmxt.algorithms.offset.none import none
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> phase, offset = none(head.wrapped_phase, head.grid)
    >>> bool((phase == head.wrapped_phase).all()), bool(offset.any())
    (True, False)
    """
    if wrapped_phase.ndim != 4:
        raise InputError(f"wrapped_phase: expected (echo, x, y, z), found shape {wrapped_phase.shape}")
    grid.check("wrapped_phase", wrapped_phase, echoes=wrapped_phase.shape[0])
    kept = np.array(wrapped_phase, dtype=np.float32, order="C")
    kept[~np.isfinite(kept)] = 0
    return kept, np.zeros(grid.shape, dtype=np.float32)
