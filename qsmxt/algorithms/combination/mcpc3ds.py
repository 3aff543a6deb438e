r"""MCPC-3D-S: coil combination from two echoes with any echo times.

The phase :math:`\psi` that all coils share between the echoes is unwrapped in space (ROMEO); the offset of coil c is
:math:`\gamma(\varphi_{c,1} - m\psi)` with :math:`m = T_1 / (T_2 - T_1)`. Symbols and the sum over coils are those of
:mod:`qsmxt.algorithms.combination.coils`.

Departure from the paper: the offsets are smoothed by weighted local polynomials
(:mod:`qsmxt.algorithms.offset.smoothing`).

References
----------
Eckstein et al. 2018 (doi:10.1002/mrm.26963); Dymerska et al. 2021 (doi:10.1002/mrm.28563).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.combination.coils import check_coils, combine
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class MCPC3DSParameters:
    """Parameters of :func:`mcpc3ds`."""

    smoothing: float = parameter(
        8.0, unit="mm", above=0, help="width of the local polynomials that smooth the offsets of the coils"
    )


@method(
    stage="combination",
    key="mcpc3ds",
    title="MCPC-3D-S coil combination",
    consumes=("coil_phase", "coil_magnitude", "echo_times"),
    optional=("mask",),
    produces=("wrapped_phase", "magnitude"),
    parameters=MCPC3DSParameters,
    references=("eckstein2018", "dymerska2021"),
    sentence="Coils were combined with MCPC-3D-S (offsets smoothed over {smoothing} mm).",
    cost=Cost(bytes_per_voxel=210, threads=2, seconds_per_megavoxel=2.0),
)
def mcpc3ds(
    coil_phase: np.ndarray,
    coil_magnitude: np.ndarray,
    echo_times: np.ndarray,
    grid: Grid,
    parameters: MCPC3DSParameters = MCPC3DSParameters(),
    *,
    progress: Progress | None = None,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Combine the coils coherently; the combined phase has no offset.

    Parameters
    ----------
    coil_phase, coil_magnitude
        ``(coil, echo, x, y, z)``, rad and any unit.
    echo_times
        Echo times, s, ascending, at least two.
    grid
        Geometry of the volume.
    parameters
        See :class:`MCPC3DSParameters`.
    progress
        Called with the fraction done.
    mask
        Voxels from which the offsets are estimated; without it the signal mask.

    Returns
    -------
    wrapped_phase, magnitude
        ``(echo, x, y, z)``, float32, rad in [-pi, pi] and the unit of the input. Coils that are not finite in a voxel
        are left out there.

    Raises
    ------
    InputError
        If shapes or echo times do not fit, or the mask is empty.

    Examples
    --------
    >>> times = np.array([0.005, 0.010])
    >>> x = np.linspace(-1, 1, 16)[:, None, None] * np.ones((16, 16, 16))
    >>> offsets = np.stack([0.3 + x, -0.5 * x, 2.0 + 0 * x])
    >>> phase = offsets[:, None] + 200 * x[None, None] * times[None, :, None, None, None]
    >>> wrapped, magnitude = mcpc3ds(phase, np.ones_like(phase), times, Grid((16, 16, 16)))
    >>> bool(np.abs(wrapped[0] - x).max() < 0.01)
    True
    """
    phase, magnitude, times = check_coils(coil_phase, coil_magnitude, echo_times, grid)
    return combine(phase, magnitude, times, grid, parameters.smoothing, unwrap=True, mask=mask, progress=progress)
