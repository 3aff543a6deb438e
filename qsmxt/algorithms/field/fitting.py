r"""The fits behind the field maps: phase, magnitude and echo times to frequency, its precision and the misfit.

Model of the signal in a voxel, echo e at time :math:`T_e`:

.. math:: S_e = M_e\, e^{i (\varphi_0 + \omega T_e)} + \text{noise of standard deviation } \sigma \text{ per channel},

so that the phase of echo e has the standard deviation :math:`\sigma / M_e` and the weights of a least-squares fit are
:math:`M_e^2`. With :math:`S_k = \sum_e M_e^2 T_e^k` the precision (inverse variance in units of :math:`\sigma^2`) of
:math:`\omega` is

.. math:: p = S_2 \;\text{(offset known)}, \qquad p = S_2 - S_1^2 / S_0 \;\text{(offset fitted)},

and the field :math:`f = \omega / 2\pi\bar\gamma B_0` has the standard deviation
:math:`\sigma / (2\pi\bar\gamma B_0 \sqrt p)`. With :math:`\sin` in place of the residual phase the same steps are
Gauss-Newton steps for the complex signal, which noise beyond :math:`\pi` in late echoes cannot mislead.

The misfit is :math:`\sum_e |S_e - M_e e^{i(\varphi_0 + \omega T_e)}|^2 = \sum_e 4 M_e^2 \sin^2 (r_e / 2)`. The quality
of a fit is the agreement of the echoes, :math:`\sum_e M_e^2 \cos r_e / S_0`, times the coherence that the slope of the
field leaves of the first echo (:mod:`qsmxt.algorithms.dephasing`), times a factor that falls below one where the
magnitude grows from one echo to the next by more than 0.2 of its maximum (the signal had cancelled before). The noise
:math:`\sigma` comes from the misfit where echoes are left over (its median over the good voxels, divided by the median
of the chi-squared distribution), else from the magnitude. Where echoes count less because of dephasing, misfit and
agreement are those of the remaining weights, while :math:`p` stays that of all echoes: with noise weights that fall
with the slope, the inversion forgets the field around strong sources (digital head at 7 T, five voxels inside: 40.0
against 30.4 %).

References
----------
Liu et al. 2013 (doi:10.1002/mrm.24272).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.angles import HALF, TURN, TWO_PI, sine
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import box_of
from qsmxt.algorithms.dephasing import gradient_coherence
from qsmxt.algorithms.echoes import check_echoes, check_field_strength, check_signal, check_times, usable_voxels
from qsmxt.algorithms.exponential import decay
from qsmxt.algorithms.signal import SAMPLE, chi_squared_median, noise_level
from qsmxt.constants import rad_per_ppm
from qsmxt.geometry import Grid

#: Growth of the magnitude from echo to echo, relative to its maximum, that noise explains.
TOLERATED_GROWTH = 0.2

#: Voxels in which the echoes agree better than this tell the noise.
GOOD_FIT = 0.9

#: Power of the coherence over a voxel in the weight of an echo. Wrong wraps of the brain of a digital head at 7 T with
#: power 0: 0.34 %, 2: 0.12, 4: 0.10, 8: 0.085.
DEPHASING_POWER = 8


@dataclass
class Fit:
    """Arrays of a fit on the cropped volume, float32: frequency (rad/s), its precision, misfit, and signal S_0."""

    frequency: np.ndarray
    precision: np.ndarray
    misfit: np.ndarray
    signal: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Fit:
        """Zeros of ``shape``."""
        return cls(*(np.zeros(shape, dtype=np.float32) for _ in range(4)))


@dataclass(frozen=True)
class Echoes:
    """Checked input of a field map, cropped to the usable voxels.

    Attributes
    ----------
    phase, magnitude
        Float32 ``(echo, x, y, z)``, a copy of the box around the usable voxels, 0 where not usable.
    times
        Echo times, s, float64.
    usable
        Uint8 ``(x, y, z)`` of the box.
    box
        Where the box lies in the volume.
    grid
        Geometry of the whole volume.
    rad_per_ppm_second
        Angular frequency of a field of 1 ppm, rad/s.
    noise
        Standard deviation of the noise as the magnitude tells it, or ``None`` if it was not asked for.
    """

    phase: np.ndarray
    magnitude: np.ndarray
    times: np.ndarray
    usable: np.ndarray
    box: tuple[slice, ...]
    grid: Grid
    rad_per_ppm_second: float
    noise: float | None = None

    @classmethod
    def of(
        cls,
        name: str,
        phase: np.ndarray,
        magnitude: np.ndarray,
        echo_times: np.ndarray,
        field_strength: float,
        grid: Grid,
        mask: np.ndarray | None,
        *,
        unknowns: int,
        remedy: str = "",
    ) -> Echoes:
        """Check and crop; ``unknowns`` per voxel is the least number of echoes, ``name`` that of the phase."""
        times = check_times(echo_times, at_least=unknowns, remedy=remedy)
        angular = rad_per_ppm(check_field_strength(field_strength), 1.0)
        phase = check_echoes(name, phase, grid, times)
        strength = check_echoes("magnitude", magnitude, grid, times)
        noise = noise_level(strength) if len(times) <= unknowns else None
        usable = usable_voxels([phase, strength], grid, mask)
        check_signal("magnitude", strength, usable)
        box = box_of(usable)
        inside = np.ascontiguousarray(usable[box]).view(np.uint8)
        cropped = [_copy_inside(volumes, box, inside) for volumes in (phase, strength)]
        return cls(cropped[0], cropped[1], times, inside, box, grid, angular, noise)

    def maps(self, fit: Fit, unknowns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Total field (ppm), its standard deviation (ppm) and the quality on the whole volume.

        The standard deviation is never reported above that of a field from a uniformly random phase of the first echo.
        """
        sigma = self.noise if self.noise is not None else self._misfit_noise(fit, unknowns)
        coherence = gradient_coherence(fit.frequency, self.usable, self.times[0])
        highest = np.pi / np.sqrt(3) / (self.rad_per_ppm_second * self.times[0])
        field, deviation, quality = (np.zeros(self.grid.shape, dtype=np.float32) for _ in range(3))
        parallel.run(
            _write_maps,
            len(self.usable),
            *(fit.frequency, fit.precision, fit.misfit, fit.signal, coherence, self.magnitude, self.usable),
            *(np.float32(v) for v in (1 / self.rad_per_ppm_second, sigma / self.rad_per_ppm_second, highest)),
            *(field[self.box], deviation[self.box], quality[self.box]),
        )
        return field, deviation, quality

    def _misfit_noise(self, fit: Fit, unknowns: int) -> float:
        voxels = np.flatnonzero(self.usable)
        voxels = voxels[:: max(1, voxels.size // SAMPLE)]
        misfit, signal = fit.misfit.reshape(-1)[voxels], fit.signal.reshape(-1)[voxels]
        good = misfit < 2 * (1 - GOOD_FIT) * signal
        chosen = misfit[good] if good.any() else misfit
        return float(np.sqrt(np.median(chosen) / chi_squared_median(len(self.times) - unknowns)))


@kernel
def _write_maps(
    start, stop, frequency, precision, misfit, signal, coherence, magnitude, usable,
    ppm, sigma, highest, field, deviation, quality,
):  # fmt: skip
    zero, one, tolerated = np.float32(0), np.float32(1), np.float32(1 + TOLERATED_GROWTH)
    largest, growth = np.empty(usable.shape[2], dtype=np.float32), np.empty(usable.shape[2], dtype=np.float32)
    for x in range(start, stop):
        for y in range(usable.shape[1]):
            inside = usable[x, y]
            a, out = frequency[x, y], field[x, y]
            for z in range(out.size):
                out[z] = a[z] * ppm if inside[z] else zero
            a, out = precision[x, y], deviation[x, y]
            for z in range(out.size):
                value = sigma / np.sqrt(a[z])
                out[z] = (value if value < highest else highest) if inside[z] else zero
            largest[:] = magnitude[0, x, y]
            growth[:] = 0
            for e in range(1, len(magnitude)):
                a, b = magnitude[e - 1, x, y], magnitude[e, x, y]
                for z in range(growth.size):
                    growth[z] = max(growth[z], b[z] - a[z])
                    largest[z] = max(largest[z], b[z])
            a, b, c, out = misfit[x, y], signal[x, y], coherence[x, y], quality[x, y]
            for z in range(out.size):
                agreement = one - HALF * a[z] / b[z]
                agreement *= c[z] * max(zero, min(one, tolerated - growth[z] / largest[z]))
                out[z] = agreement if (inside[z] and agreement > 0) else zero


def _copy_inside(volumes: np.ndarray, box: tuple[slice, ...], inside: np.ndarray) -> np.ndarray:
    out = np.empty((len(volumes), *inside.shape), dtype=np.float32)
    parallel.run(_keep_inside, len(inside), volumes[(slice(None), *box)], inside, out)
    return out


@kernel
def _keep_inside(start, stop, source, inside, out):
    for e in range(len(out)):
        for x in range(start, stop):
            for y in range(out.shape[2]):
                row, keep, copy = source[e, x, y], inside[x, y], out[e, x, y]
                for z in range(copy.size):
                    copy[z] = row[z] if keep[z] else np.float32(0)


def fit_given_offset(
    echoes: Echoes,
    *,
    offset: np.ndarray | None = None,
    in_time: bool = False,
    iterations: int = 0,
    tolerance: float = 0.0,
    exponents: tuple[float, float] = (2.0, 2.0),
    slope: np.ndarray | None = None,
) -> Fit:
    r"""Fit one frequency per voxel to phases whose offset is known.

    Parameters
    ----------
    echoes
        Data; the phases must be unwrapped, or only that of the first echo if ``in_time``.
    offset
        Phase offset, rad, on the box, to be subtracted; ``None`` is zero.
    in_time
        Shift every echo by the multiple of :math:`2\pi` that the fit of the echoes before it predicts.
    iterations
        Gauss-Newton steps for the complex signal after the linear fit.
    tolerance
        Change of the frequencies of a row, relative to their norm, at which its steps end.
    exponents
        The weights of the values :math:`\varphi_e / T_e` are :math:`M_e^a T_e^b` with these a, b; (2, 2) is least
        squares. The misfit is always that of the least-squares solution.
    slope
        Squared slope of the frequency over a voxel, (rad/s)^2, of :func:`qsmxt.algorithms.dephasing.squared_slope`:
        an echo during which the spins of a voxel spread counts less, by the :data:`DEPHASING_POWER` of its coherence.
    """
    fit = Fit.empty(echoes.usable.shape)
    nothing = np.zeros((0, 0, 0), dtype=np.float32)
    parallel.run(
        _fit_one,
        echoes.usable.shape[0],
        echoes.phase,
        echoes.magnitude,
        nothing if offset is None else offset,
        echoes.times.astype(np.float32),
        in_time,
        iterations,
        np.float32(tolerance),
        np.float32(exponents[0]),
        np.float32(exponents[1]),
        nothing if slope is None else slope,
        fit.frequency,
        fit.precision,
        fit.misfit,
        fit.signal,
    )
    return fit


def fit_with_offset(echoes: Echoes, *, iterations: int = 0, tolerance: float = 0.0) -> tuple[Fit, np.ndarray]:
    """Fit frequency and offset per voxel; returns the fit and the offset (rad, float32, on the box).

    ``iterations`` and ``tolerance`` are those of :func:`fit_given_offset`.
    """
    fit = Fit.empty(echoes.usable.shape)
    offset = np.zeros(echoes.usable.shape, dtype=np.float32)
    parallel.run(
        _fit_two,
        echoes.usable.shape[0],
        echoes.phase,
        echoes.magnitude,
        echoes.times.astype(np.float32),
        iterations,
        np.float32(tolerance),
        fit.frequency,
        fit.precision,
        fit.misfit,
        fit.signal,
        offset,
    )
    return fit, offset


@kernel
def _residual_row(residual, phase, offset, frequency, time):
    """Phase left after offset and frequency; an empty offset is zero."""
    if offset.size:
        for z in range(residual.size):
            residual[z] = phase[z] - offset[z] - time * frequency[z]
    else:
        for z in range(residual.size):
            residual[z] = phase[z] - time * frequency[z]


@kernel
def _finish_row(phase, weights, offset, times, x, y, frequency, misfit, signal, residual):
    """Misfit and signal of one row from the squared magnitudes ``weights`` of its echoes."""
    misfit[:] = 0
    signal[:] = 0
    for e in range(times.size):
        _residual_row(residual, phase[e, x, y], offset, frequency, times[e])
        w = weights[e]
        for z in range(residual.size):
            chord = sine(HALF * residual[z])
            misfit[z] += np.float32(4) * w[z] * chord * chord
            signal[z] += w[z]


@kernel
def _settled(frequency, numerator, denominator, tolerance):
    """Whether the last steps of a row, numerator over denominator, were small against its frequencies."""
    moved, size = 0.0, 0.0
    for z in range(frequency.size):
        step = numerator[z] / denominator[z]
        moved += step * step
        size += frequency[z] * frequency[z]
    return moved <= tolerance * tolerance * size


@kernel
def _echo_weights(magnitude, slope, time, out):
    """Squared magnitude of a row, less where the spins of a voxel have spread until ``time``; no slope: no loss."""
    for z in range(out.size):
        out[z] = magnitude[z] * magnitude[z]
    if slope.size:
        factor = np.float32(DEPHASING_POWER / 24) * time * time
        for z in range(out.size):
            out[z] *= decay(min(factor * slope[z], np.float32(60)))


@kernel
def _fit_one(
    start, stop, phase, magnitude, offset, times, in_time, iterations, tolerance, a, b, slope,
    frequency, precision, misfit, signal,
):  # fmt: skip
    count, _, ny, nz = phase.shape
    numerator = np.empty(nz, dtype=np.float32)
    denominator = np.empty(nz, dtype=np.float32)
    residual = np.empty(nz, dtype=np.float32)
    squares = np.empty(nz, dtype=np.float32)
    weights = np.empty((count, nz), dtype=np.float32)
    least_squares = a == 2 and b == 2
    nothing = np.empty(0, dtype=np.float32)
    tiny = np.float32(1e-30)
    for x in range(start, stop):
        for y in range(ny):
            omega = frequency[x, y]
            start_offset = offset[x, y] if offset.size else nothing
            for e in range(count):
                _echo_weights(magnitude[e, x, y], slope[x, y] if slope.size else nothing, times[e], weights[e])
            omega[:] = 0
            numerator[:] = 0
            denominator[:] = tiny
            squares[:] = 0
            for e in range(count):
                t, square = times[e], weights[e]
                _residual_row(residual, phase[e, x, y], start_offset, omega, t)
                if in_time and e > 0:
                    for z in range(nz):
                        residual[z] -= TWO_PI * np.floor(residual[z] * TURN + HALF)
                for z in range(nz):
                    w = square[z] * t
                    denominator[z] += w * t
                    omega[z] += w * residual[z] / denominator[z]
            for _ in range(iterations):
                numerator[:] = 0
                for e in range(count):
                    t, square = times[e], weights[e]
                    _residual_row(residual, phase[e, x, y], start_offset, omega, t)
                    for z in range(nz):
                        numerator[z] += square[z] * t * sine(residual[z])
                for z in range(nz):
                    omega[z] += numerator[z] / denominator[z]
                if tolerance > 0 and _settled(omega, numerator, denominator, tolerance):
                    break
            full = precision[x, y]
            full[:] = tiny
            for e in range(count):
                t, m = times[e], magnitude[e, x, y]
                for z in range(nz):
                    full[z] += m[z] * m[z] * t * t
            _finish_row(phase, weights, start_offset, times, x, y, omega, misfit[x, y], signal[x, y], residual)
            if not least_squares:
                omega[:] = 0
                squares[:] = 0
                denominator[:] = tiny
                for e in range(count):
                    t, m = times[e], magnitude[e, x, y]
                    _residual_row(residual, phase[e, x, y], start_offset, omega, t)
                    for z in range(nz):
                        w = m[z] ** a * t**b + tiny
                        denominator[z] += w
                        omega[z] += w * (residual[z] / t) / denominator[z]
                        squares[z] += w * w / max(m[z] * m[z] * t * t, tiny)
                for z in range(nz):
                    precision[x, y, z] = denominator[z] * denominator[z] / max(squares[z], tiny)


@kernel
def _fit_two(start, stop, phase, magnitude, times, iterations, tolerance, frequency, precision, misfit, signal, offset):
    count, _, ny, nz = phase.shape
    sums = np.empty((5, nz), dtype=np.float32)
    weights = np.empty((count, nz), dtype=np.float32)
    nothing = np.empty(0, dtype=np.float32)
    residual = np.empty(nz, dtype=np.float32)
    tiny = np.float32(1e-30)
    for x in range(start, stop):
        for y in range(ny):
            omega, zero = frequency[x, y], offset[x, y]
            mean, spread, along, across, weight = sums[0], sums[1], sums[2], sums[3], sums[4]
            omega[:] = 0
            zero[:] = 0
            mean[:] = 0
            spread[:] = tiny
            weight[:] = tiny
            for e in range(count):
                m = magnitude[e, x, y]
                for z in range(nz):
                    w = m[z] * m[z]
                    weight[z] += w
                    mean[z] += w * times[e]
            for z in range(nz):
                mean[z] /= weight[z]
            for e in range(count):
                m = magnitude[e, x, y]
                for z in range(nz):
                    t = times[e] - mean[z]
                    spread[z] += m[z] * m[z] * t * t
            for n in range(iterations + 2):
                along[:] = 0
                across[:] = 0
                for e in range(count):
                    m = magnitude[e, x, y]
                    _residual_row(residual, phase[e, x, y], zero, omega, times[e])
                    if n >= 2:
                        for z in range(nz):
                            residual[z] = sine(residual[z])
                    for z in range(nz):
                        w = m[z] * m[z] * residual[z]
                        across[z] += w
                        along[z] += w * (times[e] - mean[z])
                for z in range(nz):
                    step = along[z] / spread[z]
                    omega[z] += step
                    zero[z] += across[z] / weight[z] - step * mean[z]
                if tolerance > 0 and n >= 2 and _settled(omega, along, spread, tolerance):
                    break
            for z in range(nz):
                precision[x, y, z] = spread[z]
            for e in range(count):
                _echo_weights(magnitude[e, x, y], nothing, times[e], weights[e])
            _finish_row(phase, weights, zero, times, x, y, omega, misfit[x, y], signal[x, y], residual)
