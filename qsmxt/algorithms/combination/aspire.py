r"""ASPIRE: coil combination without any unwrapping, for echo times that are multiples of each other.

The offset of coil c is

.. math:: \varphi_{0,c} = \gamma(\varphi_{c,1} - m\psi), \qquad m = \frac{T_1}{T_2 - T_1} ,

with the phase :math:`\psi` (rad) that all coils share between the first two echoes. If m is an integer (for example
:math:`T_2 = 2 T_1`), the offset does not change when :math:`\psi` changes by :math:`2\pi`. Symbols and the sum over
coils are those of :mod:`qsmxt.algorithms.combination.coils`.

Departure from the paper: the offsets are smoothed by weighted local polynomials
(:mod:`qsmxt.algorithms.offset.smoothing`).

Parameters
    ``smoothing``: width of the local polynomials; smaller follows the offsets closer.

References
----------
Eckstein et al. 2018 (doi:10.1002/mrm.26963).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.combination.coils import check_coils, combine
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: How far m may be from an integer: the error of the offset is this times the wraps of the phase between the echoes.
TOLERANCE = 0.01


@dataclass(frozen=True)
class AspireParameters:
    """Parameters of :func:`aspire`."""

    smoothing: float = parameter(
        8.0, unit="mm", above=0, help="width of the local polynomials that smooth the offsets of the coils"
    )


@method(
    stage="combination",
    key="aspire",
    title="ASPIRE coil combination",
    consumes=("coil_phase", "coil_magnitude", "echo_times"),
    optional=("mask",),
    produces=("wrapped_phase", "magnitude"),
    parameters=AspireParameters,
    references=("eckstein2018",),
    sentence="Coils were combined with ASPIRE (offsets smoothed over {smoothing} mm).",
    cost=Cost(bytes_per_voxel=37, bytes_per_echo=15.5, threads=2, seconds_per_megavoxel=2.0),
)
def aspire(
    coil_phase: np.ndarray,
    coil_magnitude: np.ndarray,
    echo_times: np.ndarray,
    grid: Grid,
    parameters: AspireParameters = AspireParameters(),
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
        Echo times, s, float ``(echo,)``, ascending, at least two, the first a multiple of the spacing of the first two.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`AspireParameters`.
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
        If a shape is not that of the grid and the echoes, there is one echo, times are not ascending and above 0, the
        first echo time is no multiple of the spacing of the first two, or the mask is empty.

    Examples
    --------
    The phase of the phantom's echoes has a noise of 0.01 rad:

    >>> import numpy as np
    >>> from qsmxt.algorithms.combination.aspire import aspire
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> phase, magnitude = aspire(head.coil_phase, head.coil_magnitude, head.echo_times, head.grid, mask=head.mask)
    >>> error = np.angle(np.exp(1j * (phase - head.offset_free_phase)))[:, head.mask]  # rad
    >>> round(float(abs(error).mean()), 2), bool(abs(error).max() < 0.1)
    (0.01, True)
    """
    phase, magnitude, times = check_coils(coil_phase, coil_magnitude, echo_times, grid)
    multiple = times[0] / (times[1] - times[0])
    if abs(multiple - round(multiple)) > TOLERANCE:
        raise InputError(
            f"echo times: ASPIRE expects the first to be a multiple of the spacing of the first two, found "
            f"{times[0]:g} and {times[1]:g} s (a multiple of {multiple:.3f}); use MCPC-3D-S"
        )
    return combine(phase, magnitude, times, grid, parameters.smoothing, unwrap=False, mask=mask, progress=progress)
