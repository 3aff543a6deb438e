r"""DECOMPOSE-QSM: three pools in every voxel, from the decay and the phase of a gradient echo alone.

.. math::

    S(t) = C_+ e^{-(a \chi_+ + R_0 + i \frac23 \gamma B_0 \chi_+) t} + C_- e^{-(-a \chi_- + R_0
           + i \frac23 \gamma B_0 \chi_-) t} + C_0 e^{-R_0 t}, \qquad a = \frac{2\pi}{9\sqrt3}\,\gamma B_0 ,

with the signals :math:`C` of tissue with paramagnetic sources (:math:`\chi_+ \ge 0`), with diamagnetic ones
(:math:`\chi_- \le 0`) and without (all :math:`C \ge 0`), and the common rate :math:`R_0 \ge 0` (1/s); a is the rate of
static dephasing among spheres. The magnitude of S is that measured, its phase :math:`-\frac23\gamma B_0\chi t` with the
susceptibility :math:`\chi` (ppm) of each echo where there is one, else of all. Reported are the susceptibilities of
both pools as parts of the voxel, :math:`C_\pm \chi_\pm / (C_+ + C_- + C_0)`.

Every voxel is fitted in turn for the signals (linear) and for the susceptibilities and the rate (damped Gauss-Newton
steps of all six, cut at their bounds).

To the first order in time the signal knows only the total rate and the mean susceptibility: how much of the rate is
reversible shows in the curvature of the decay alone. The fit therefore needs many echoes and a high signal-to-noise
ratio, and the closed form should be looked at beside it.

Departures from the paper
    All six parameters in one step; a start from the closed form that ascribes half of R2* to the sources.

Parameters
    ``most``: bound of the size of :math:`\chi_\pm`. ``iterations``: most steps of a voxel. ``tolerance``: decrease of
    the misfit, relative to the power of the first echo, at which it is done.

References
----------
Chen et al. 2021 (doi:10.1016/j.neuroimage.2021.118477).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.echoes import check_field_strength, check_times
from qsmxt.algorithms.separation.sources import PRODUCES, Pair, checked, checked_echoes, inside
from qsmxt.constants import hz_per_ppm
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Part of R2* that the start ascribes to the sources.
REVERSIBLE = 0.5

#: Static dephasing among spheres, rate over angular frequency.
SPHERES = 2 * math.pi / (9 * math.sqrt(3))

#: Units in which the six parameters are damped: signals, susceptibilities (ppm), rate (1/s).
SCALES = (1.0, 1.0, 1.0, 0.1, 0.1, 20.0)


@dataclass(frozen=True)
class DecomposeParameters:
    """Parameters of :func:`decompose`."""

    most: float = parameter(0.5, unit="ppm", above=0, help="largest size of the susceptibility of a pool")
    iterations: int = parameter(40, at_least=1, help="most steps per voxel")
    tolerance: float = parameter(
        1e-10,
        at_least=0,
        help="decrease of the misfit, relative to the power of the first echo, at which a voxel is done",
    )


@method(
    stage="separation",
    key="decompose",
    title="DECOMPOSE-QSM",
    consumes=("chi", "r2star", "magnitude", "echo_times", "mask", "field_strength"),
    optional=("echo_chi",),
    produces=PRODUCES,
    parameters=DecomposeParameters,
    references=("chen2021",),
    sentence="Para- and diamagnetic sources were separated with the three-pool signal model of DECOMPOSE-QSM.",
    cost=Cost(bytes_per_voxel=16, bytes_per_echo=4, seconds_per_megavoxel=5.0),
)
def decompose(
    chi: np.ndarray,
    r2star: np.ndarray,
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    mask: np.ndarray,
    field_strength: float,
    grid: Grid,
    parameters: DecomposeParameters = DecomposeParameters(),
    *,
    progress: Progress | None = None,
    echo_chi: np.ndarray | None = None,
) -> Pair:
    """Paramagnetic and diamagnetic susceptibility (ppm); see the module.

    Parameters
    ----------
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``, referenced to tissue without sources.
    r2star
        Effective transverse relaxation rate, 1/s, float32 ``(x, y, z)``, where the fit starts.
    magnitude
        Magnitude of the echoes, arbitrary unit, float32 ``(echo, x, y, z)``; at least three echoes.
    echo_times
        Echo times, s, float ``(echo,)``, ascending.
    mask
        Where to separate, bool ``(x, y, z)``.
    field_strength
        Strength of B0, T, float.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`DecomposeParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    echo_chi
        Susceptibility of every echo, ppm, float32 ``(echo, x, y, z)``. Without it all echoes have ``chi``.

    Returns
    -------
    chi_paramagnetic
        Susceptibility of paramagnetic sources, at least zero, ppm, float32 ``(x, y, z)``; zero outside the mask.
    chi_diamagnetic
        Susceptibility of diamagnetic sources, at most zero, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If there are fewer than three echoes, times are not ascending and above 0, a shape is not that of the grid, the
        mask is empty or not of 0 and 1, an array has NaN or Inf in the mask, or the field strength is none.

    Examples
    --------
    A signal without noise, whose rate is that of static dephasing and 20 1/s more:

    >>> import numpy as np
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> from qsmxt.algorithms.separation.decompose import decompose
    >>> rate = (20 + 323.5 * abs(head.chi)).astype(np.float32)  # 1/s at 3 T
    >>> signal = np.exp(-rate * head.echo_times[:, None, None, None])
    >>> sources = decompose(head.chi, rate, signal, head.echo_times, head.mask, head.field_strength, head.grid)
    >>> truth = head.chi_paramagnetic, head.chi_diamagnetic
    >>> [nrmse(a, b, head.mask) < 10 for a, b in zip(sources, truth)]  # percent of the true sources
    [True, True]
    """
    values, region = checked(chi, mask, grid)
    times = check_times(echo_times, at_least=3, remedy="use r2starqsm")
    signal = checked_echoes(magnitude, times, region, grid)
    rate = np.maximum(inside("r2star", r2star, region, grid), 0)
    each = values[None]
    if echo_chi is not None:
        each = np.empty(echo_chi.shape, dtype=np.float32)
        for volume, out in zip(echo_chi, each, strict=True):
            out[:] = inside("echo_chi", volume, region, grid)
    angular = 2 * math.pi * hz_per_ppm(check_field_strength(field_strength))
    positive, negative = (np.zeros(grid.shape, dtype=np.float32) for _ in range(2))
    parallel.run(
        _fit, grid.shape[0], signal, np.ascontiguousarray(each), rate, region, times, angular, parameters.most,
        parameters.iterations, parameters.tolerance, positive, negative, progress=progress,
    )  # fmt: skip
    return positive, negative


@kernel
def _fit(start, stop, magnitude, chi, rate, mask, times, angular, most, iterations, tolerance, positive, negative):
    count = times.size
    data, found, trial = np.empty((2, count)), np.empty(6), np.empty(6)
    normal, factor, step = np.empty((6, 6)), np.empty((6, 6)), np.empty((2, 6))
    for x in range(start, stop):
        for y in range(mask.shape[1]):
            for z in range(mask.shape[2]):
                scale = np.float64(magnitude[0, x, y, z])
                if not mask[x, y, z] or not scale > 0:
                    continue
                mean = 0.0
                for e in range(count):
                    own = np.float64(chi[min(e, chi.shape[0] - 1), x, y, z])
                    mean += own / count
                    angle = -2.0 / 3.0 * angular * own * times[e]
                    data[0, e] = magnitude[e, x, y, z] / scale * np.cos(angle)
                    data[1, e] = magnitude[e, x, y, z] / scale * np.sin(angle)
                _begin(found, times[0], angular, mean, np.float64(rate[x, y, z]), most)
                _fit_voxel(data, times, angular, most, iterations, tolerance, found, trial, normal, factor, step)
                total = found[0] + found[1] + found[2]
                if total > 0:
                    positive[x, y, z] = found[0] * found[3] / total
                    negative[x, y, z] = -found[1] * found[4] / total


@kernel
def _begin(p, first, angular, chi, rate, most):
    """The six parameters of the closed form: (C+, C-, C0, chi+, -chi-, R0)."""
    size = REVERSIBLE * rate / (SPHERES * angular)
    p[:3] = np.exp(rate * first) / 3
    p[3] = min(max(1.5 * (size + chi), 0.0), most)
    p[4] = min(max(1.5 * (size - chi), 0.0), most)
    p[5] = (1 - REVERSIBLE) * rate


@kernel
def _pools(p, t, angular):
    """Signals of the pools at time ``t`` for C of 1: without sources, and both parts of those with them."""
    base, turn = np.exp(-p[5] * t), 2.0 / 3.0 * angular * t
    plus = base * np.exp(-SPHERES * angular * p[3] * t)
    minus = base * np.exp(-SPHERES * angular * p[4] * t)
    return (
        base, plus * np.cos(turn * p[3]), -plus * np.sin(turn * p[3]),
        minus * np.cos(turn * p[4]), minus * np.sin(turn * p[4]),
    )  # fmt: skip


@kernel
def _misfit(p, times, angular, data):
    """Sum of squared differences of signal and ``data``."""
    total = 0.0
    for e in range(times.size):
        base, real_plus, imag_plus, real_minus, imag_minus = _pools(p, times[e], angular)
        real = data[0, e] - p[0] * real_plus - p[1] * real_minus - p[2] * base
        imag = data[1, e] - p[0] * imag_plus - p[1] * imag_minus
        total += real * real + imag * imag
    return total


@kernel
def _linearise(p, times, angular, data, normal, right):
    """Lower half of the normal matrix and right side, in units of :data:`SCALES`."""
    normal[:] = 0.0
    right[:] = 0.0
    a, turn = SPHERES * angular, 2.0 / 3.0 * angular
    for e in range(times.size):
        t = times[e]
        base, rp, ip, rm, im = _pools(p, t, angular)
        real, imag = p[0] * rp + p[1] * rm + p[2] * base, p[0] * ip + p[1] * im
        slopes = (
            (rp * SCALES[0], ip * SCALES[0]),
            (rm * SCALES[1], im * SCALES[1]),
            (base * SCALES[2], 0.0),
            (p[0] * t * (turn * ip - a * rp) * SCALES[3], -p[0] * t * (a * ip + turn * rp) * SCALES[3]),
            (-p[1] * t * (a * rm + turn * im) * SCALES[4], p[1] * t * (turn * rm - a * im) * SCALES[4]),
            (-t * real * SCALES[5], -t * imag * SCALES[5]),
        )
        for i in range(6):
            right[i] += slopes[i][0] * (data[0, e] - real) + slopes[i][1] * (data[1, e] - imag)
            for j in range(i + 1):
                normal[i, j] += slopes[i][0] * slopes[j][0] + slopes[i][1] * slopes[j][1]


@kernel
def _solve(normal, damping, right, factor, step):
    """Solution for ``normal`` plus ``damping`` by Cholesky's factor; whether there is one."""
    for i in range(6):
        for j in range(i + 1):
            value = normal[i, j] + (damping if i == j else 0.0)
            for k in range(j):
                value -= factor[i, k] * factor[j, k]
            if i > j:
                factor[i, j] = value / factor[j, j]
            elif value > 0:
                factor[i, i] = np.sqrt(value)
            else:
                return False
    for i in range(6):
        value = right[i]
        for k in range(i):
            value -= factor[i, k] * step[k]
        step[i] = value / factor[i, i]
    for i in range(5, -1, -1):
        value = step[i]
        for k in range(i + 1, 6):
            value -= factor[k, i] * step[k]
        step[i] = value / factor[i, i]
    return True


@kernel
def _fit_voxel(data, times, angular, most, iterations, tolerance, p, trial, normal, factor, steps):
    """Damped Gauss-Newton steps with bounds from the six parameters ``p``, which become the solution."""
    cost, damping = _misfit(p, times, angular, data), 1e-2
    right, step = steps[0], steps[1]
    for _ in range(iterations):
        _linearise(p, times, angular, data, normal, right)
        new = np.inf
        for _ in range(6):
            if _solve(normal, damping, right, factor, step):
                for i in range(6):
                    trial[i] = max(p[i] + step[i] * SCALES[i], 0.0)
                trial[3], trial[4] = min(trial[3], most), min(trial[4], most)
                new = _misfit(trial, times, angular, data)
                if new < cost:
                    break
            damping *= 10
        if not new < cost:
            return
        moved, cost = cost - new, new
        p[:] = trial
        damping = max(damping * 0.2, 1e-8)
        if moved < tolerance:
            return
