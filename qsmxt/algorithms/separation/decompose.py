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
    cost=Cost(bytes_per_voxel=16, bytes_per_echo=4, seconds_per_megavoxel=25.0),
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
    data = np.empty(2 * count)
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
                    data[e] = magnitude[e, x, y, z] / scale * np.cos(angle)
                    data[count + e] = magnitude[e, x, y, z] / scale * np.sin(angle)
                found = _fit_voxel(data, times, angular, mean, np.float64(rate[x, y, z]), most, iterations, tolerance)
                total = found[0] + found[1] + found[2]
                if total > 0:
                    positive[x, y, z] = found[0] * found[3] / total
                    negative[x, y, z] = -found[1] * found[4] / total


@kernel
def _model(p, times, angular, model, slopes):
    """Signal and its derivatives by (C+, C-, C0, chi+, -chi-, R0), real parts before imaginary ones."""
    count = times.size
    a = SPHERES * angular
    turn = 2.0 / 3.0 * angular
    for e in range(count):
        t = times[e]
        base = np.exp(-p[5] * t)
        plus, minus = base * np.exp(-a * p[3] * t), base * np.exp(-a * p[4] * t)
        cp, sp = np.cos(turn * p[3] * t), -np.sin(turn * p[3] * t)
        cm, sm = np.cos(turn * p[4] * t), np.sin(turn * p[4] * t)
        model[e] = p[0] * plus * cp + p[1] * minus * cm + p[2] * base
        model[count + e] = p[0] * plus * sp + p[1] * minus * sm
        slopes[0, e], slopes[0, count + e] = plus * cp, plus * sp
        slopes[1, e], slopes[1, count + e] = minus * cm, minus * sm
        slopes[2, e], slopes[2, count + e] = base, 0.0
        slopes[3, e] = p[0] * t * plus * (-a * cp + turn * sp)
        slopes[3, count + e] = p[0] * t * plus * (-a * sp - turn * cp)
        slopes[4, e] = p[1] * t * minus * (-a * cm - turn * sm)
        slopes[4, count + e] = p[1] * t * minus * (-a * sm + turn * cm)
        slopes[5, e], slopes[5, count + e] = -t * model[e], -t * model[count + e]


@kernel
def _fit_voxel(data, times, angular, chi, rate, most, iterations, tolerance):
    """Damped Gauss-Newton steps with bounds; returns the six parameters."""
    a = SPHERES * angular
    size = REVERSIBLE * rate / a
    start = np.exp(rate * times[0]) / 3
    p = np.array([start, start, start, 0.0, 0.0, (1 - REVERSIBLE) * rate])
    p[3] = min(max(1.5 * (size + chi), 0.0), most)
    p[4] = min(max(1.5 * (size - chi), 0.0), most)
    scales = np.array([1.0, 1.0, 1.0, 0.1, 0.1, 20.0])
    model, slopes = np.empty(data.size), np.empty((6, data.size))
    trial_model, trial_slopes = np.empty(data.size), np.empty((6, data.size))
    _model(p, times, angular, model, slopes)
    cost = np.sum((data - model) ** 2)
    damping = 1e-2
    for _ in range(iterations):
        left = data - model
        normal, right = np.empty((6, 6)), np.empty(6)
        for i in range(6):
            right[i] = np.sum(slopes[i] * left) * scales[i]
            for j in range(6):
                normal[i, j] = np.sum(slopes[i] * slopes[j]) * scales[i] * scales[j]
        accepted, moved = False, 0.0
        for _ in range(6):
            damped = normal + damping * np.eye(6)
            trial = p + np.linalg.solve(damped, right) * scales
            for i in range(6):
                trial[i] = max(trial[i], 0.0)
            trial[3], trial[4] = min(trial[3], most), min(trial[4], most)
            _model(trial, times, angular, trial_model, trial_slopes)
            new = np.sum((data - trial_model) ** 2)
            if new < cost:
                accepted = True
                moved = cost - new
                break
            damping *= 10
        if not accepted:
            break
        p, cost = trial, new
        model[:], slopes[:] = trial_model, trial_slopes
        damping = max(damping * 0.2, 1e-8)
        if moved < tolerance:
            break
    return p
