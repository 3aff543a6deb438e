r"""R2 from a train of spin echoes with extended phase graphs, imperfect refocusing included.

Where the refocusing pulses turn by less than 180 degrees, stimulated echoes add to the train: the first echo is too low
and the decay too slow, so a plain exponential finds too small a rate. The extended phase graph holds the configurations
:math:`F_k^+, F_k^-, Z_k` of the magnetisation. From one echo to the next (spacing :math:`\tau`) it relaxes and is
dephased for :math:`\tau/2`, turned by the angle :math:`\alpha`, and relaxes and is dephased again:

.. math::

    F^\pm \to F^\pm e^{-\tau R_2/2}, \qquad Z \to Z e^{-\tau R_1/2}, \qquad
    \begin{pmatrix} F_k^+ \\ F_k^- \\ Z_k \end{pmatrix} \to
    \begin{pmatrix} \cos^2\frac\alpha2 & \sin^2\frac\alpha2 & \sin\alpha \\
                    \sin^2\frac\alpha2 & \cos^2\frac\alpha2 & -\sin\alpha \\
                    -\frac12\sin\alpha & \frac12\sin\alpha & \cos\alpha \end{pmatrix}
    \begin{pmatrix} F_k^+ \\ F_k^- \\ Z_k \end{pmatrix} .

The trains of a grid of R2 and :math:`\alpha` (from ``least_angle`` to 180 degrees) are compared with those measured;
the pair with the largest normalised scalar product is kept, R2 by a parabola through its neighbours. R1 is 1/s.
Voxels without signal have an R2 of 0.

Departures from the paper
    Comparison with a table instead of a fit; one component.

References
----------
Hennig 1988 (doi:10.1016/0022-2364(88)90128-X); Lebel and Wilman 2010 (doi:10.1002/mrm.22487).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.echoes import check_echoes, check_signal, check_times, usable_voxels
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Rates (1/s) of the table, their number, the number of angles, and R1 (1/s).
RATES, RATE_COUNT, ANGLE_COUNT, R1 = (1.0, 200.0), 110, 13, 1.0

#: Largest relative difference of the spacings of a train.
UNEVEN = 0.05

#: Part of the 99th percentile of the first echo below which there is no signal.
NO_SIGNAL = 0.02

#: Voxels that are compared at once.
_CHUNK = 16384


@dataclass(frozen=True)
class EPGParameters:
    """Parameters of :func:`epg`."""

    least_angle: float = parameter(
        120.0, unit="degree", at_least=30, at_most=180, help="smallest angle of refocusing; 180 for perfect refocusing"
    )


@method(
    stage="spinecho",
    key="epg",
    title="Extended phase graphs",
    consumes=("spin_echo_magnitude", "spin_echo_times"),
    optional=("mask",),
    produces=("r2",),
    parameters=EPGParameters,
    references=("hennig1988", "lebel2010"),
    sentence="R2 was fitted to the spin echoes with extended phase graphs (refocusing from {least_angle:g} degrees).",
    cost=Cost(bytes_per_voxel=3.5, bytes_per_echo=1.3, threads=1, seconds_per_megavoxel=8.0),
)
def epg(
    spin_echo_magnitude: np.ndarray,
    spin_echo_times: np.ndarray,
    grid: Grid,
    parameters: EPGParameters = EPGParameters(),
    *,
    progress: Progress | None = None,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """R2 (1/s) from a train of spin echoes; see the module.

    Parameters
    ----------
    spin_echo_magnitude
        Magnitude of the spin echoes, arbitrary unit, float32 ``(echo, x, y, z)``; at least two echoes.
    spin_echo_times
        Times of the spin echoes, s, float ``(echo,)``, ascending, equally spaced, the first one spacing after the
        excitation.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`EPGParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    mask
        Voxels to fit, bool ``(x, y, z)``. Without it all with finite data are.

    Returns
    -------
    numpy.ndarray
        R2, 1/s, float32 ``(x, y, z)``; zero outside the mask and where there is no signal.

    Raises
    ------
    InputError
        If there are fewer than two echoes, they are not equally spaced, a shape is not that of the grid and the echoes,
        or the mask is empty.

    Examples
    --------
    The refocusing of the phantom is perfect and R2 is 12 1/s:

    >>> from qsmxt.algorithms.spinecho.epg import epg
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> r2 = epg(head.spin_echo_magnitude, head.spin_echo_times, head.grid, mask=head.mask)
    >>> round(float(r2[head.mask].min()), 1), round(float(r2[head.mask].max()), 1)
    (12.0, 12.0)
    """
    times = check_times(spin_echo_times, at_least=2, remedy="R2 needs several spin echoes")
    spacing = check_spacing(times)
    signal = check_echoes("spin_echo_magnitude", spin_echo_magnitude, grid, times)
    usable = usable_voxels([signal], grid, mask)
    check_signal("spin_echo_magnitude", signal, usable)
    first = signal[0][usable]
    usable[usable] = first > NO_SIGNAL * np.quantile(first, 0.99)
    rates = np.geomspace(*RATES, RATE_COUNT)
    angles = np.radians(np.linspace(parameters.least_angle, 180.0, ANGLE_COUNT))
    table = trains(rates, angles, spacing, len(times)).astype(np.float32)
    table /= np.linalg.norm(table, axis=2, keepdims=True)
    measured = np.ascontiguousarray(signal[:, usable].T)
    found = np.empty(len(measured), dtype=np.float32)
    for start in range(0, len(measured), _CHUNK):
        found[start : start + _CHUNK] = _best_rate(measured[start : start + _CHUNK], table, rates)
        if progress:
            progress(min(1.0, (start + _CHUNK) / len(measured)))
    out: np.ndarray = np.zeros(grid.shape, dtype=np.float32)
    out[usable] = found
    return out


def check_spacing(times: np.ndarray) -> float:
    """The spacing of a train, s; :class:`InputError` unless it is even and the first echo is one spacing away."""
    gaps = np.diff(np.concatenate([[0.0], times]))
    spacing = float(np.median(gaps))
    if np.abs(gaps - spacing).max() > UNEVEN * spacing:
        raise InputError(
            f"spin_echo_times: expected multiples of one spacing, found {', '.join(f'{t:g}' for t in times)} s; "
            "give a map of R2 instead"
        )
    return spacing


def trains(rates: np.ndarray, angles: np.ndarray, spacing: float, count: int) -> np.ndarray:
    """Magnitudes of the echoes for every R2 (1/s) and angle of refocusing (rad), ``(rate, angle, echo)``."""
    r, a = rates[:, None], angles[None, :]
    shape = (len(rates), len(angles))
    up, down, along = (np.zeros((2 * count + 2, *shape)) for _ in range(3))
    up[0] = down[0] = 1.0
    transverse, longitudinal = np.exp(-spacing * r / 2), np.exp(-spacing * R1 / 2)
    cosine, sine, mean = np.cos(a / 2) ** 2, np.sin(a / 2) ** 2, np.sin(a)
    out = np.empty((*shape, count))
    for echo in range(count):
        up, down, along = _dephased(up * transverse, down * transverse, along * longitudinal)
        up, down, along = (
            cosine * up + sine * down + mean * along,
            sine * up + cosine * down - mean * along,
            0.5 * mean * (down - up) + np.cos(a) * along,
        )
        up, down, along = _dephased(up * transverse, down * transverse, along * longitudinal)
        out[..., echo] = np.abs(up[0])
    return out


def _dephased(up: np.ndarray, down: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Configurations one order further; :math:`F_0^+` and :math:`F_0^-` are the same."""
    higher, lower = np.zeros_like(up), np.zeros_like(down)
    higher[1:], lower[:-1] = up[:-1], down[1:]
    higher[0] = lower[0]
    return higher, lower, along


def _best_rate(measured: np.ndarray, table: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """R2 of every row of ``measured`` ``(voxel, echo)``."""
    count = len(rates)
    product = measured @ table.reshape(-1, table.shape[2]).T
    best = product.argmax(axis=1)
    rate, angle = np.divmod(best, table.shape[1])
    inner = np.clip(rate, 1, count - 2)
    rows = np.arange(len(measured))
    low, middle, high = (
        product[rows, (inner + step) * table.shape[1] + angle].astype(np.float64) for step in (-1, 0, 1)
    )
    curvature = low - 2 * middle + high
    shift = np.divide(low - high, 2 * curvature, out=np.zeros_like(low), where=curvature < 0)
    logarithm = np.log(rates[inner]) + np.clip(shift, -1, 1) * np.log(rates[1] / rates[0])
    return np.exp(logarithm).astype(np.float32)
