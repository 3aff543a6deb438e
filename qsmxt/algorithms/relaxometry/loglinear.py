r"""R2* by weighted linear regression of the logarithm of the magnitude.

.. math:: \min_{\ln S_0,\,R_2^*} \sum_e w_e \Big(\ln\frac{m_e}{F_e} - \ln S_0 + R_2^* T_e\Big)^2

The noise of :math:`\ln m` is :math:`\sigma/A` for the true amplitude A, so the weights should be :math:`A_e^2`. The
first fit uses :math:`w_e = m_e^2`; as these share the noise of the logarithm, late echoes pull the rate down (by
:math:`2\sigma^2/A^2` each), so the fit is repeated with the squares of the fitted signal, which are free of this bias.

Two echoes give the logarithm of their ratio. F is the dephasing of :mod:`qsmxt.algorithms.relaxometry.decay`.

Parameters
    ``repetitions``: of the fit with new weights. ``field_gradient``: which sides of the voxel the F of
    :mod:`~qsmxt.algorithms.relaxometry.decay` takes in. ``max_rate``: where R2* is cut.

References
----------
Hagberg et al. 2002 (doi:10.1002/mrm.10283) compare numerical, linear and nonlinear estimation of T2*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.relaxometry.decay import PRODUCES, Decay, DecayParameters, Maps
from qsmxt.algorithms.rows import span
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class LogLinearParameters(DecayParameters):
    """Parameters of :func:`loglinear`."""

    repetitions: int = parameter(
        2, at_least=0, at_most=20, help="how often the fit is repeated with weights from the fitted decay"
    )


@method(
    stage="relaxometry",
    key="loglinear",
    title="Weighted log-linear regression",
    consumes=("magnitude", "echo_times"),
    optional=("mask", "total_field", "field_strength"),
    produces=PRODUCES,
    parameters=LogLinearParameters,
    references=("hagberg2002",),
    sentence="R2* was fitted by weighted log-linear regression (field gradient corrected: {field_gradient}).",
    cost=Cost(bytes_per_voxel=33, seconds_per_megavoxel=0.2),
)
def loglinear(
    magnitude: np.ndarray,
    echo_times: np.ndarray,
    grid: Grid,
    parameters: LogLinearParameters = LogLinearParameters(),
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
        See :class:`LogLinearParameters`.
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

    >>> from qsmxt.algorithms.relaxometry.loglinear import loglinear
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> r2star, t2star, s0, noise, _ = loglinear(head.magnitude, head.echo_times, head.grid, mask=head.mask)
    >>> error = (r2star - head.r2star)[head.mask]
    >>> bool(abs(error.mean()) < 0.1), round(float((error / noise[head.mask]).std()), 1)  # 1: it is right
    (True, 1.0)
    """
    data = Decay.of(magnitude, echo_times, grid, parameters, (mask, total_field, field_strength))
    return data.maps(fit_logarithm(data, parameters.repetitions), parameters.max_rate)


def fit_logarithm(data: Decay, repetitions: int) -> np.ndarray:
    """R2* (1/s), float32, 0 where not usable, NaN-free; may be negative."""
    rate: np.ndarray = np.zeros(data.usable.shape, dtype=np.float32)
    centre = float(data.times.mean())
    parallel.run(
        _fit, rate.shape[0], data.magnitude, data.attenuation, (data.times - centre), data.usable, repetitions, rate
    )
    return rate


@kernel
def _fit(start, stop, magnitude, factors, times, usable, repetitions, rate):
    """Times are relative to their mean, so that the fitted signal stays within the range of floats."""
    count = times.size
    logs = np.empty(count)
    shares = np.empty(count)
    weights = np.empty(count)
    for x in range(start, stop):
        for y in range(rate.shape[1]):
            first, end = span(usable[x, y])
            for z in range(first, end):
                if not usable[x, y, z]:
                    continue
                good = 0
                for e in range(count):
                    m = np.float64(magnitude[e, x, y, z])
                    shares[e] = np.float64(factors[e, x, y, z]) if factors.size else 1.0
                    weights[e] = m * m if m > 0 else 0.0
                    logs[e] = np.log(m / shares[e]) if m > 0 else 0.0
                    good += 1 if m > 0 else 0
                if good < 2:
                    continue
                slope = 0.0
                for n in range(repetitions + 1):
                    s, st, stt, sl, stl = 0.0, 0.0, 0.0, 0.0, 0.0
                    for e in range(count):
                        w = weights[e]
                        if w > 0 and n > 0:
                            w = shares[e] * np.exp(slope * times[e])
                            w *= w
                        s += w
                        st += w * times[e]
                        stt += w * times[e] * times[e]
                        sl += w * logs[e]
                        stl += w * times[e] * logs[e]
                    slope = (s * stl - st * sl) / (s * stt - st * st)
                    slope = min(max(slope, -2000.0), 2000.0)
                rate[x, y, z] = -slope
