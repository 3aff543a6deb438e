r"""What all fits of the transverse decay share: checks, dephasing by field gradients, S0, noise and limits.

Model of the magnitude of echo e at time :math:`T_e`:

.. math:: m_e = S_0\, F_e\, e^{-R_2^* T_e} ,

with :math:`F_e = 1` or, if the field gradient is corrected, the dephasing across a voxel whose sides are :math:`v_i`,

.. math:: F_e = \prod_i \left|\mathrm{sinc}(\nu_i T_e)\right|, \qquad
    \nu_i = \bar\gamma B_0\, v_i\, \frac{\partial f}{\partial r_i}, \qquad
    \mathrm{sinc}(x) = \frac{\sin \pi x}{\pi x},

f being the total field (ppm). The gradient is the mean of the differences to the two neighbours, or the one difference
there is at the edge of the mask. Given R2*, :math:`S_0` follows by least squares. The noise of R2* is that of the
weighted fit,

.. math:: \sigma_{R_2^*} = \sigma \Big/ \sqrt{\textstyle\sum_e A_e^2 (T_e - \bar T)^2}, \qquad
    A_e = S_0 F_e e^{-R_2^* T_e}, \quad \bar T = \frac{\sum_e A_e^2 T_e}{\sum_e A_e^2},

with the noise :math:`\sigma` of the magnitude from the misfit (its median over the volume), or from the magnitude
itself if there are two echoes. It bounds the noise of unweighted methods from below. That of T2* follows,
:math:`\sigma_{T_2^*} = T_2^{*2}\,\sigma_{R_2^*}`.

Units: times s, rates 1/s, field ppm, magnitude and S0 arbitrary. Voxels whose first echo is below three times the noise
are 0 in all maps. R2* is cut to [0, ``max_rate``], T2* to at most 2 s.

References
----------
Yablonskiy and Haacke 1994 (doi:10.1002/mrm.1910320610) on field gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import box_of
from qsmxt.algorithms.echoes import check_echoes, check_field_strength, check_signal, check_times, usable_voxels
from qsmxt.algorithms.exponential import decay
from qsmxt.algorithms.rows import span
from qsmxt.algorithms.signal import SAMPLE, chi_squared_median, noise_level
from qsmxt.constants import hz_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import parameter

#: Longest T2* that is reported, s.
LONGEST_T2STAR = 2.0

#: Least dephasing factor; an echo that has lost more is corrected by no more than this.
LEAST_ATTENUATION = 0.1

#: A first echo below this multiple of the noise is no signal.
LEAST_SNR = 3.0

#: What every method of the stage makes, in order.
PRODUCES = ("r2star", "t2star", "s0", "r2star_noise", "t2star_noise")

Maps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class DecayParameters:
    """Parameters that all fits of the decay share."""

    field_gradient: str = parameter(
        "none",
        choices=("none", "slice", "all"),
        help="correct the dephasing by the gradient of the total field along the thickest side of the voxel or all",
    )
    max_rate: float = parameter(500.0, unit="1/s", above=0, help="highest R2* that is reported")


@dataclass(frozen=True)
class Decay:
    """Checked input of a fit; kernels skip what is not usable.

    Attributes
    ----------
    magnitude
        Float32 ``(echo, x, y, z)``.
    attenuation
        Dephasing factors F of the same shape (1 far from the usable voxels), or an array of size 0 for 1 everywhere.
    times
        Echo times, s, float64.
    usable
        Uint8 ``(x, y, z)``.
    measured_noise
        Noise of the magnitude as its background tells it; ``None`` if there are more than two echoes.
    """

    magnitude: np.ndarray
    attenuation: np.ndarray
    times: np.ndarray
    usable: np.ndarray
    measured_noise: float | None = None

    @classmethod
    def of(
        cls,
        magnitude: np.ndarray,
        echo_times: np.ndarray,
        grid: Grid,
        parameters: DecayParameters,
        optional: tuple[np.ndarray | None, np.ndarray | None, float | None] = (None, None, None),
        *,
        at_least: int = 2,
    ) -> Decay:
        """Check; ``optional`` is mask, total field (ppm) and field strength (T), ``at_least`` echoes."""
        mask, total_field, field_strength = optional
        remedy = "R2* needs several echoes" if at_least == 2 else "use loglinear for two echoes"
        times = check_times(echo_times, at_least=at_least, remedy=remedy)
        strength = check_echoes("magnitude", magnitude, grid, times)
        usable = usable_voxels([strength], grid, mask)
        check_signal("magnitude", strength, usable)
        factors = np.empty((len(times), 0, 0, 0), dtype=np.float32)
        if parameters.field_gradient != "none":
            if total_field is None or field_strength is None:
                raise InputError(
                    "total_field: expected the total field (ppm) and the field strength (T) to correct the field "
                    'gradient, found none; give them or set field_gradient to "none"'
                )
            grid.check("total_field", total_field)
            box = box_of(usable)
            field = np.asarray(total_field, dtype=np.float32)[box]
            factors = np.ones(strength.shape, dtype=np.float32)
            acquisition = (times, field_strength, parameters.field_gradient)
            factors[(slice(None), *box)] = attenuation(field, usable[box], grid, acquisition)
        noise = noise_level(strength) if len(times) == 2 else None
        return cls(strength, factors, times, usable.view(np.uint8), noise)

    def corrected(self) -> np.ndarray:
        """The magnitude without dephasing."""
        return self.magnitude / self.attenuation if self.attenuation.size else self.magnitude

    def maps(self, rate: np.ndarray, max_rate: float) -> Maps:
        """R2* (1/s), T2* (s), S0, noise of R2* (1/s) and of T2* (s); overwrites ``rate``, 0 where not usable."""
        s0, deviation, t2star, of_time = (np.zeros(rate.shape, dtype=np.float32) for _ in range(4))
        misfit = np.empty_like(rate)
        times = self.times.astype(np.float32)
        parallel.run(
            _finish, rate.shape[0], rate, self.magnitude, self.attenuation, times, self.usable, np.float32(max_rate),
            s0, deviation, misfit,
        )  # fmt: skip
        noise = self.measured_noise
        if noise is None:
            noise = self._misfit_noise(misfit)
        parallel.run(
            _limit, rate.shape[0], rate, self.magnitude[0], self.usable, np.float32(noise), np.float32(LEAST_SNR),
            np.float32(1 / LONGEST_T2STAR), t2star, s0, deviation, of_time,
        )  # fmt: skip
        return rate, t2star, s0, deviation, of_time

    def _misfit_noise(self, misfit: np.ndarray) -> float:
        """Noise of the magnitude from the misfit of the voxels with signal."""
        first = self.magnitude[0].reshape(-1)
        inside = np.flatnonzero(self.usable.view(bool))
        inside = inside[:: max(1, inside.size // SAMPLE)]
        signal = inside[first[inside] > 0.2 * np.quantile(first[inside], 0.9)]
        if signal.size == 0:
            return 0.0
        median = float(np.median(misfit.reshape(-1)[signal]))
        return float(np.sqrt(median / chi_squared_median(len(self.times) - 2)))


def attenuation(
    field: np.ndarray, inside: np.ndarray, grid: Grid, acquisition: tuple[np.ndarray, float, str]
) -> np.ndarray:
    """Dephasing factors F, float32 ``(echo, x, y, z)`` in [0.1, 1]; ``acquisition`` is times, B0 and the axes.

    ``axes`` is "all" or "slice", the longest side of the voxel (or, if they are equal, the one nearest B0).
    """
    times, field_strength, axes = acquisition
    per_ppm = hz_per_ppm(check_field_strength(field_strength))
    field = np.where(inside, field, np.float32(0))
    if not np.isfinite(field).all():
        raise InputError("total_field: expected finite values in the mask, found NaN or Inf")
    chosen = range(3) if axes == "all" else (grid.slice_axis,)
    out = np.ones((len(times), *field.shape), dtype=np.float32)
    for axis in chosen:
        across = np.float32(per_ppm) * _mean_difference(field, inside, axis)
        for echo, time in enumerate(times):
            out[echo] *= np.abs(np.sinc(np.float32(time) * across))
    return np.maximum(out, np.float32(LEAST_ATTENUATION), out=out)


def _mean_difference(field: np.ndarray, inside: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the differences to the neighbours along ``axis`` that lie inside, 0 if there are none."""
    field, inside = np.moveaxis(field, axis, 0), np.moveaxis(inside, axis, 0)
    pair = inside[1:] & inside[:-1]
    step = np.where(pair, field[1:] - field[:-1], np.float32(0))
    total, count = np.zeros_like(field), np.zeros(field.shape, dtype=np.float32)
    total[1:] += step
    total[:-1] += step
    count[1:] += pair
    count[:-1] += pair
    return np.moveaxis(total / np.maximum(count, 1), 0, axis)


@kernel
def _finish(start, stop, rate, magnitude, factors, times, usable, max_rate, s0, precision, misfit):
    """Limits of the rate, S0, sum of A^2 (T - mean T)^2, and misfit, between the outermost usable voxels of a row."""
    count, ny, nz = times.size, rate.shape[1], rate.shape[2]
    models = np.empty((count, nz), dtype=np.float32)
    sums = np.empty((3, nz), dtype=np.float32)
    zero, tiny, longest = np.float32(0), np.float32(1e-30), np.float32(80)
    for x in range(start, stop):
        for y in range(ny):
            a, b = span(usable[x, y])
            r, amplitude, left, spread = rate[x, y, a:b], s0[x, y, a:b], misfit[x, y, a:b], precision[x, y, a:b]
            for z in range(r.size):
                r[z] = min(max(r[z], zero), max_rate) if r[z] == r[z] else zero
            squares, cross, first = sums[0, a:b], sums[1, a:b], sums[2, a:b]
            sums[:, a:b] = 0
            for e in range(count):
                t, m, row = times[e], magnitude[e, x, y, a:b], models[e, a:b]
                for z in range(r.size):
                    row[z] = decay(min(r[z] * t, longest))
                if factors.size:
                    factor = factors[e, x, y, a:b]
                    for z in range(r.size):
                        row[z] *= factor[z]
                for z in range(r.size):
                    squares[z] += row[z] * row[z]
                    cross[z] += row[z] * m[z]
                    first[z] += row[z] * row[z] * t
            for z in range(r.size):
                amplitude[z] = cross[z] / max(squares[z], tiny)
                first[z] /= max(squares[z], tiny)
                left[z] = zero
                spread[z] = zero
            for e in range(count):
                t, m, row = times[e], magnitude[e, x, y, a:b], models[e, a:b]
                for z in range(r.size):
                    value = amplitude[z] * row[z]
                    left[z] += (m[z] - value) * (m[z] - value)
                    spread[z] += value * value * (t - first[z]) * (t - first[z])


@kernel
def _limit(start, stop, rate, first, usable, noise, least_snr, least_rate, t2star, s0, deviation, of_time):
    """Zero voxels without signal; T2* and the standard deviations, between the outermost usable voxels of a row."""
    zero, one = np.float32(0), np.float32(1)
    for x in range(start, stop):
        for y in range(rate.shape[1]):
            a, b = span(usable[x, y])
            r, t, amplitude, d = rate[x, y, a:b], t2star[x, y, a:b], s0[x, y, a:b], deviation[x, y, a:b]
            m, inside, of_t = first[x, y, a:b], usable[x, y, a:b], of_time[x, y, a:b]
            for z in range(r.size):
                signal = inside[z] and m[z] > least_snr * noise and m[z] > zero
                r[z] = r[z] if signal else zero
                t[z] = one / max(r[z], least_rate) if signal else zero
                amplitude[z] = amplitude[z] if signal else zero
                d[z] = noise / np.sqrt(d[z]) if signal and d[z] > zero else zero
                of_t[z] = t[z] * t[z] * d[z]
