r"""Finding the parameter that decides a map from the data.

Every published comparison shows that the regularisation decides, and its best value moves with the noise. A method
says which of its parameters that is, which values are tried, from the least to the most regularised, and how a quick
map follows from one (:class:`Trials`); three criteria, the same for all methods, choose:

``equalisation``
    Frequency equalisation. With too little regularisation the map has too much power near the cone where the dipole
    vanishes, with too much it has too little. The mean over shells of :math:`|k|` (10 to 90 % of the highest frequency)
    of

    .. math:: \zeta = \log\frac{\overline{|F\chi|}_{|D| < 0.085}}{\overline{|F\chi|}_{|D| > 0.3}}

    falls with the regularisation; bisection finds the value from which on it is at most :math:`\zeta_0`. For total
    variation :math:`\zeta_0 = -0.13`; methods that leave the cone half empty have one of their own (-0.7 to -1). It is
    that of brains: objects with other shapes have another one.
``discrepancy``
    The most regularised value whose residual :math:`\|D\chi - f\|` in the mask does not exceed that expected from
    ``field_noise``, between two values on trial by a line; that of the least residual if all exceed it.
``lcurve``
    The corner of largest curvature of :math:`\log\|\nabla\chi\|_1` over :math:`\log\|D\chi - f\|^2`. Where there is
    much noise the curve of total variation is nearly straight, and what is found is too weak.

Weights of total variation have the same unit and meaning (ppm mm) in all methods, so all are found with quick solutions
of :func:`total_variation`: for a total field with the local field that
:func:`qsmxt.algorithms.inversion.tvtfi.tvtfi` finds, for a prior that ignores edges times the share of the variation
that it does not see.

Values have three digits. A map with the value found is the map with that value given, to the byte.

References
----------
Milovic et al. 2021 (doi:10.1002/mrm.28435); discrepancy: Morozov 1966; L-curve: Hansen 1992 (doi:10.1137/1034115).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.differences import gradient
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.algorithms.vectors import norm
from qsmxt.errors import InputError
from qsmxt.registry.methods import Progress, found_value

CRITERIA = ("equalisation", "discrepancy", "lcurve")
#: Weights between which the criteria look, ppm mm.
RANGE = (1e-5, 3e-3)
#: Log ratio of the amplitudes of total-variation maps at which frequencies count as equal.
EQUAL = -0.13
#: Quick solutions: iterations and relative change.
QUICK = (20, 1e-2)
#: ADMM penalty of quick solutions over their weight, mm/ppm.
TV_PENALTY = 100.0
#: Values on trial for the criteria that need a curve.
TRIALS = 9
#: Values among which the others choose; a power of two and one.
VALUES = 129


@dataclass(frozen=True)
class Trials:
    """Values on trial for the parameter of a method that decides its map, with quick solutions.

    Attributes
    ----------
    parameter
        Name of the parameter.
    values
        From the least to the most regularised.
    solve
        Map (ppm) on the box of the domain for a value.
    domain
        Field and mask on the box.
    equal
        Log ratio of amplitudes (:func:`amplitude_ratio`) at which frequencies count as equal in maps of this method.
    """

    parameter: str
    values: tuple[Any, ...]
    solve: Callable[[Any], np.ndarray]
    domain: Domain
    equal: float = EQUAL

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions of :data:`TRIALS` values, norms of their residuals (ppm), total variations in the mask."""
        dipole, mask = self.domain.dipole(), self.domain.mask
        positions = np.unique(np.linspace(0, len(self.values) - 1, TRIALS).round().astype(int))
        residuals, variations = [], []
        for position in positions:
            chi = self.solve(self.values[position])
            residuals.append(norm(np.where(mask, fourier.filtered(chi, dipole) - self.domain.field, np.float32(0))))
            slopes = gradient(
                np.where(mask, chi - chi[mask].mean(dtype=np.float64), 0).astype(np.float32), self.domain.grid
            )
            variations.append(float(np.abs(slopes).sum(dtype=np.float64)))
        return positions, np.array(residuals), np.array(variations)


def steps(low: float, high: float) -> tuple[float, ...]:
    """:data:`VALUES` values from ``low`` to ``high``, equal ratios apart, three digits each."""
    return tuple(_three_digits(value) for value in np.geomspace(low, high, VALUES))


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def numbers(most: int, fewest: int) -> tuple[int, ...]:
    """Numbers of iterations from ``most`` to ``fewest``, about equal ratios apart."""
    return tuple(sorted({round(value) for value in np.geomspace(fewest, most, VALUES)}, reverse=True))


def chosen(given: Any, criterion: str, trials: Trials, field_noise: np.ndarray | None) -> Any:
    """``given``, or the value on trial that ``criterion`` finds if it is ``"auto"``.

    Raises
    ------
    InputError
        If the criterion is the discrepancy principle and there is no ``field_noise`` (ppm, uncropped).
    """
    if given != "auto":
        return given
    if criterion == "discrepancy":
        value = by_discrepancy(trials, _expected(trials, field_noise))
    else:
        value = equalised(trials) if criterion == "equalisation" else by_lcurve(trials)
    return found_value(trials.parameter, value)


def weight_of(
    weight: float | str, criterion: str, domain: Domain, field_noise: np.ndarray | None, penalty: float = TV_PENALTY
) -> float:
    """``weight``, or the one that ``criterion`` finds with quick total variation if it is ``"auto"`` (ppm mm)."""
    return float(chosen(weight, criterion, of_total_variation(domain, penalty), field_noise))


def of_total_variation(
    domain: Domain,
    penalty: float = TV_PENALTY,
    *,
    parameter: str = "weight",
    value_of: Callable[[float], float] = float,
) -> Trials:
    """Trials of the weight of a total-variation prior for a local field, or of what follows from it by ``value_of``."""
    weights = {_three_digits(value_of(weight)): weight for weight in steps(*RANGE)}

    def solve(value: float) -> np.ndarray:
        return np.asarray(total_variation(domain, weights[value], penalty, *QUICK))

    return Trials(parameter, tuple(weights), solve, domain)


def of_transfer(
    parameter: str,
    ends: tuple[float, float],
    transfer: Callable[[float], np.ndarray],
    domain: Domain,
    equal: float,
) -> Trials:
    """Trials of a map that is the field after multiplication of its half spectrum with ``transfer`` of a value."""
    return Trials(parameter, steps(*ends), lambda v: fourier.filtered(domain.field, transfer(v)), domain, equal)


def _expected(trials: Trials, field_noise: np.ndarray | None) -> float:
    """Norm of the noise (ppm) in the mask."""
    if field_noise is None:
        raise InputError(
            "field_noise: expected a noise map for the discrepancy principle, found none; use another criterion"
        )
    noise = trials.domain.crop.extract(np.asarray(field_noise, dtype=np.float32))
    return norm(np.where(trials.domain.mask, noise, np.float32(0)))


def equalised(trials: Trials) -> Any:
    """Value with equal amplitudes near and far from the cone, by bisection."""
    ratio = amplitude_ratio(trials.domain)
    low, high = 0, len(trials.values) - 1
    while low < high:
        middle = (low + high) // 2
        chi = trials.solve(trials.values[middle])
        if ratio(np.where(trials.domain.mask, chi, np.float32(0))) > trials.equal:
            low = middle + 1
        else:
            high = middle
    return trials.values[low]


def by_discrepancy(trials: Trials, expected: float) -> Any:
    """Most regularised value whose residual norm (ppm) is at most ``expected``, between values on trial by a line."""
    positions, residuals, _ = trials.curve()
    good = np.flatnonzero(residuals <= expected)
    if not good.size:
        return trials.values[positions[int(np.argmin(residuals))]]
    last = int(good[-1])
    if last == positions.size - 1:
        return trials.values[-1]
    position = np.interp(expected, residuals[last : last + 2], positions[last : last + 2])
    return trials.values[int(position)]


def by_lcurve(trials: Trials) -> Any:
    """Value at the corner of the L-curve."""
    positions, residuals, variations = trials.curve()
    if not residuals.all() or not variations.all() or positions.size < 3:
        return trials.values[len(trials.values) // 2]
    x, y = 2 * np.log(residuals), np.log(variations)
    dx, dy = np.gradient(x, positions), np.gradient(y, positions)
    bend = dx * np.gradient(dy, positions) - dy * np.gradient(dx, positions)
    curvature = bend / np.maximum(dx**2 + dy**2, 1e-12) ** 1.5
    return trials.values[positions[1 + int(np.argmax(curvature[1:-1]))]]


def total_variation(
    domain: Domain,
    weight: float,
    penalty: float,
    iterations: int,
    tolerance: float,
    progress: Progress | None = None,
    engine: Engine = HOST,
) -> Any:
    r"""ADMM for :math:`\tfrac12\|D\chi - f\|^2 + \lambda\|\nabla\chi\|_1` on the box, a pair of transforms a step.

    The map is where ``engine`` computes.
    """
    grid, rho = domain.grid, penalty * weight
    dipole = domain.dipole()
    gain = np.float32(rho) * kernels.negative_laplacian(grid)
    gain += dipole * dipole
    gain[0, 0, 0] = 1
    data = engine.forward(engine.send(domain.field), domain.support)
    engine.scale(data, engine.send(dipole / gain))
    gain = np.float32(rho) / gain
    gain[0, 0, 0] = 0
    del dipole
    gain = engine.send(gain)
    shrinkage = engine.shrinkage(grid)
    chi = engine.inverse(engine.copy(data), grid.shape)
    for iteration in range(iterations):
        chi, moved = engine.renewed(shrinkage, chi, 1 / penalty, gain, data)
        if progress:
            progress((iteration + 1) / iterations)
        if moved < tolerance:
            break
    return chi


def amplitude_ratio(domain: Domain) -> Callable[[np.ndarray], float]:
    """Function of a map: mean log ratio of its amplitudes near and far from the cone."""
    grid = domain.grid
    cone = np.abs(domain.dipole())
    k = np.sqrt(sum((f * f for f in fourier.frequencies(grid)), start=np.float32(0)))
    highest = 0.5 / max(v for v, n in zip(grid.voxel_size, grid.shape, strict=True) if n > 1 or max(grid.shape) == 1)
    shell = np.digitize(k, np.linspace(0.1, 0.9, 17) * highest)
    times = np.broadcast_to(fourier.spectrum_weights(grid), k.shape)
    regions = [(shell[r], times[r], r) for r in (cone < 0.085, cone > 0.3)]
    counts = [np.bincount(s, weights=t, minlength=18)[1:17] for s, t, _ in regions]
    filled = (counts[0] > 0) & (counts[1] > 0)

    def ratio(chi: np.ndarray) -> float:
        amplitude = np.abs(fourier.forward(chi))
        near, far = (
            np.bincount(s, weights=t * amplitude[r], minlength=18)[1:17][filled] / c[filled]
            for (s, t, r), c in zip(regions, counts, strict=True)
        )
        some = (near > 0) & (far > 0)
        return float(np.mean(np.log(near[some] / far[some]))) if some.any() else EQUAL

    return ratio
