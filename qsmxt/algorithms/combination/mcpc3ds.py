r"""MCPC-3D-S: coil combination from two echoes with any echo times.

The offset of coil c is

.. math:: \varphi_{0,c} = \gamma(\varphi_{c,1} - m\psi), \qquad m = \frac{T_1}{T_2 - T_1} ,

with the phase :math:`\psi` (rad) that all coils share between the first two echoes, unwrapped in space (ROMEO). Symbols
and the sum over coils are those of :mod:`qsmxt.algorithms.combination.coils`.

Departure from the paper: the offsets are smoothed by weighted local polynomials
(:mod:`qsmxt.algorithms.offset.smoothing`).

Parameters
    ``smoothing``: width of the local polynomials; smaller follows the offsets closer.

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
    cost=Cost(bytes_per_voxel=42, bytes_per_echo=15.5, threads=2, seconds_per_megavoxel=2.0),
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
    """Combined phase, which has no offset, and magnitude of all coils; see the module.

    Parameters
    ----------
    coil_phase
        Phase of every coil, rad, float32 ``(coil, echo, x, y, z)``; a coil that is not finite in a voxel is left out
        there.
    coil_magnitude
        Magnitude of every coil, arbitrary unit, float32 ``(coil, echo, x, y, z)``.
    echo_times
        Echo times, s, float ``(echo,)``, ascending, at least two.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`MCPC3DSParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    mask
        Voxels from which the offsets are estimated, bool ``(x, y, z)``. Without it the signal mask.

    Returns
    -------
    wrapped_phase
        Phase, rad, in [-pi, pi], float32 ``(echo, x, y, z)``, everywhere.
    magnitude
        Magnitude, in the arbitrary unit of the coils, float32 ``(echo, x, y, z)``, everywhere.

    Raises
    ------
    InputError
        If a shape is not that of the grid and the echoes, there is one echo, times are not ascending and above 0, or
        the mask is empty.

    Examples
    --------
    The phase of the phantom's echoes has a noise of 0.01 rad:

    >>> import numpy as np
    >>> from qsmxt.algorithms.combination.mcpc3ds import mcpc3ds
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> phase, magnitude = mcpc3ds(head.coil_phase, head.coil_magnitude, head.echo_times, head.grid, mask=head.mask)
    >>> error = np.angle(np.exp(1j * (phase - head.offset_free_phase)))[:, head.mask]  # rad
    >>> round(float(abs(error).mean()), 2), bool(abs(error).max() < 0.1)
    (0.01, True)
    """
    phase, magnitude, times = check_coils(coil_phase, coil_magnitude, echo_times, grid)
    return combine(phase, magnitude, times, grid, parameters.smoothing, unwrap=True, mask=mask, progress=progress)
