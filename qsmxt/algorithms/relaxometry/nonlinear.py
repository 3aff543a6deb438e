r"""R2* by nonlinear least squares with the mean of the Rice distribution as the model.

The magnitude of a signal of amplitude A in complex noise of standard deviation :math:`\sigma` per channel never falls
to zero: its mean is

.. math:: \mu(A) = \sigma \sqrt{\tfrac{\pi}{2}}\, e^{-u}\left[(1 + 2u) I_0(u) + 2u I_1(u)\right], \quad
    u = \frac{A^2}{4\sigma^2}, \qquad \mu(0) = 1.253\,\sigma, \quad \mu \approx A + \frac{\sigma^2}{2A} .

A fit of a plain exponential takes this floor for slow decay. Here

.. math:: \min_{S_0,\,R_2^*} \sum_e \left[m_e - \mu\big(S_0 F_e e^{-R_2^* T_e}\big)\right]^2

is solved in every voxel by damped Gauss-Newton steps, from the log-linear fit on. With noise 0 the model is the plain
exponential. Magnitudes that are root sums of squares of many coils have a higher floor than this.

Parameters
    ``noise``: :math:`\sigma`; ``auto`` measures it. ``iterations``: most steps of a voxel. ``tolerance``:
    relative change of the rate at which it is done. ``field_gradient``: which
    sides of the voxel the F of :mod:`~qsmxt.algorithms.relaxometry.decay` takes in. ``max_rate``: where R2* is cut.

References
----------
Gudbjartsson and Patz 1995 (doi:10.1002/mrm.1910340618) on the distribution; Hagberg et al. 2002
(doi:10.1002/mrm.10283).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.relaxometry.decay import PRODUCES, Decay, DecayParameters, Maps
from qsmxt.algorithms.relaxometry.loglinear import fit_logarithm
from qsmxt.algorithms.signal import noise_level
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Entries of the table of the Rician mean per unit of A / sigma, and where the table ends.
_STEPS, _END = 64, 12


@dataclass(frozen=True)
class NonlinearParameters(DecayParameters):
    """Parameters of :func:`nonlinear`."""

    noise: float | str = parameter(
        "auto", auto=True, at_least=0, unit="arbitrary",
        help="noise of one channel in the unit of the magnitude, which makes the Rician floor; 0 for no floor",
    )  # fmt: skip
    iterations: int = parameter(30, at_least=1, help="most steps per voxel")
    tolerance: float = parameter(1e-7, at_least=0, help="relative change of the rate at which a voxel is done")


@method(
    stage="relaxometry",
    key="nonlinear",
    title="Nonlinear least squares with Rician floor",
    consumes=("magnitude", "echo_times"),
    optional=("mask", "total_field", "field_strength"),
    produces=PRODUCES,
    parameters=NonlinearParameters,
    references=("hagberg2002", "gudbjartsson1995"),
    sentence=(
        "R2* was fitted by nonlinear least squares with a Rician noise floor "
        "(field gradient corrected: {field_gradient})."
    ),
    cost=Cost(bytes_per_voxel=33, seconds_per_megavoxel=1.0),
)
def nonlinear(
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    grid: Grid,
    parameters: NonlinearParameters = NonlinearParameters(),
    *,
    progress: Progress | None = None,
    mask: np.ndarray | None = None,
    total_field: np.ndarray | None = None,
    field_strength: float | None = None,
) -> Maps:
    """R2* (1/s), T2* (s), S0 and the noise of R2* and T2* from the magnitude of all echoes; see the module.

    Parameters
    ----------
    magnitude
        Magnitude of the echoes as measured (not corrected for inhomogeneity), arbitrary unit, float32 ``(echo, x, y,
        z)``; at least two echoes.
    echo_times
        Echo times, s, float ``(echo,)``, ascending.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`NonlinearParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    mask
        Voxels to fit, bool ``(x, y, z)``. Without it all with finite data are.
    total_field
        Relative field of all sources, ppm, float32 ``(x, y, z)``; needed if ``field_gradient`` is corrected.
    field_strength
        Strength of B0, T, float; needed if ``field_gradient`` is corrected.

    Returns
    -------
    r2star
        R2*, 1/s, float32 ``(x, y, z)``, from 0 to ``max_rate``. This and all others are zero outside the mask and where
        there is no signal.
    t2star
        T2*, s, float32 ``(x, y, z)``, at most 2 s.
    s0
        Magnitude at echo time zero, in the arbitrary unit of the magnitude, float32 ``(x, y, z)``.
    r2star_noise
        Standard deviation of R2*, 1/s, float32 ``(x, y, z)``.
    t2star_noise
        Standard deviation of T2*, s, float32 ``(x, y, z)``.

    Raises
    ------
    InputError
        If there are fewer than two echoes, times are not ascending and above 0, a shape is not that of the grid and the
        echoes, the mask is empty, or ``field_gradient`` is corrected and the field or its strength is missing or the
        field has NaN or Inf in the mask.

    Examples
    --------
    The phantom has noise, and the fit says how much of it is in R2*:

    >>> from qsmxt.algorithms.relaxometry.nonlinear import nonlinear
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> r2star, t2star, s0, noise, _ = nonlinear(head.magnitude, head.echo_times, head.grid, mask=head.mask)
    >>> error = (r2star - head.r2star)[head.mask]
    >>> bool(abs(error.mean()) < 0.1), round(float((error / noise[head.mask]).std()), 1)  # 1: it is right
    (True, 1.0)
    """
    data = Decay.of(magnitude, echo_times, grid, parameters, (mask, total_field, field_strength))
    noise = noise_level(magnitude) if parameters.noise == "auto" else float(parameters.noise)
    rate = fit_logarithm(data, 1)
    parallel.run(
        _gauss_newton, rate.shape[0], data.magnitude, data.attenuation, data.times, data.usable, noise,
        rician_mean(np.arange(_END * _STEPS + 1) / _STEPS), parameters.iterations,
        parameters.tolerance, rate, progress=progress,
    )  # fmt: skip
    return data.maps(rate, parameters.max_rate)


def rician_mean(snr: np.ndarray) -> np.ndarray:
    """Mean magnitude over sigma for true amplitudes ``snr`` over sigma, float64.

    >>> [round(float(v), 4) for v in rician_mean(np.array([0.0, 10.0]))]
    [1.2533, 10.0501]
    """
    u = np.square(snr) / 4
    return np.sqrt(np.pi / 2) * ((1 + 2 * u) * scipy.special.ive(0, u) + 2 * u * scipy.special.ive(1, u))


@kernel
def _mean_and_slope(amplitude, noise, table):
    """Rician mean of an amplitude and its derivative."""
    if noise <= 0:
        return amplitude, 1.0
    s = amplitude / noise
    if s >= _END - 1:
        return amplitude + noise * (0.5 / s + 0.125 / s**3), 1.0 - 0.5 / (s * s)
    place = s * _STEPS
    i = int(place)
    f = place - i
    low, high = table[i], table[i + 1]
    return noise * (low + f * (high - low)), (high - low) * _STEPS


@kernel
def _cost(magnitude, shares, times, s0, rate, noise, table):
    total = 0.0
    for e in range(times.size):
        value, _ = _mean_and_slope(s0 * shares[e] * np.exp(-rate * times[e]), noise, table)
        total += (magnitude[e] - value) ** 2
    return total


@kernel
def _gauss_newton(start, stop, magnitude, factors, times, usable, noise, table, iterations, tolerance, rate):
    count = times.size
    m = np.empty(count)
    shares = np.ones(count)
    for x in range(start, stop):
        for y in range(rate.shape[1]):
            for z in range(rate.shape[2]):
                if not usable[x, y, z] or magnitude[0, x, y, z] <= 0:
                    continue
                for e in range(count):
                    m[e] = magnitude[e, x, y, z]
                    if factors.size:
                        shares[e] = factors[e, x, y, z]
                first = np.float64(rate[x, y, z])
                rate[x, y, z] = _fit_voxel(m, shares, times, first, noise, table, iterations, tolerance)


@kernel
def _fit_voxel(m, shares, times, r, noise, table, iterations, tolerance):
    """Levenberg-Marquardt for S0 and the rate; the rate is scaled with the last echo time."""
    r = min(max(r, 0.0), 2.0 / times[0])
    squares, cross = 0.0, 0.0
    for e in range(times.size):
        shape = shares[e] * np.exp(-r * times[e])
        squares += shape * shape
        cross += shape * m[e]
    a = cross / squares
    damping = 1e-3
    cost = _cost(m, shares, times, a, r, noise, table)
    for _ in range(iterations):
        aa, ar, rr, ga, gr = 0.0, 0.0, 0.0, 0.0, 0.0
        for e in range(times.size):
            shape = shares[e] * np.exp(-r * times[e])
            value, slope = _mean_and_slope(a * shape, noise, table)
            by_a, by_r = slope * shape, -slope * a * shape * times[e]
            left = m[e] - value
            aa += by_a * by_a
            ar += by_a * by_r
            rr += by_r * by_r
            ga += by_a * left
            gr += by_r * left
        accepted = False
        for _ in range(8):
            pa, pr = aa * (1 + damping), rr * (1 + damping)
            determinant = pa * pr - ar * ar
            if not determinant > 0:
                return r
            da, dr = (pr * ga - ar * gr) / determinant, (pa * gr - ar * ga) / determinant
            trial_a, trial_r = max(a + da, 1e-12 * a), max(r + dr, -100.0)
            new = _cost(m, shares, times, trial_a, trial_r, noise, table)
            if new <= cost:
                accepted = True
                break
            damping *= 8
        if not accepted:
            return r
        step = abs(trial_r - r)
        a, r, cost = trial_a, trial_r, new
        damping *= 0.1
        if step < tolerance * (1.0 + abs(r)):
            return r
    return r
