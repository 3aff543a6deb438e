r"""Choosing the weight of a total-variation prior from the data.

Every published comparison shows that the weight decides, and its best value moves with the noise. Three criteria, all
evaluated with quick solutions of :func:`total_variation`, since the weight has the same unit and meaning (ppm mm) in
every method of this folder that has one:

``equalisation``
    Frequency equalisation. With too little regularisation the map has too much power near the cone where the dipole
    vanishes, with too much it has too little. The mean over shells of :math:`|k|` (10 to 90 % of the highest frequency)
    of

    .. math:: \zeta = \log\frac{\overline{|F\chi|}_{|D| < 0.085}}{\overline{|F\chi|}_{|D| > 0.3}}

    falls with the weight; the weight at which it is -0.15 is found by bisection. On digital heads (1.5 mm; 0, 0.9 and
    3 ppb of noise; B0 along the axis or at 25 degrees) the best weights had -0.10 to -0.19; NRMSE of TV with the
    chosen weight 25.3, 25.7 and 34.8 %, with the best 24.7, 25.6 and 31.6 %, at 25 degrees 28.2, 28.7, 36.4 and 28.2,
    28.7, 32.8 %.
``discrepancy``
    The largest weight whose residual :math:`\|D\chi - f\|` in the mask does not exceed that expected from
    ``field_noise``; the smallest on trial if even that one does.
``lcurve``
    The corner of largest curvature of :math:`\log\|\nabla\chi\|_1` over :math:`\log\|D\chi - f\|^2`. Too weak on the
    digital heads.

References
----------
Milovic et al. 2021 (doi:10.1002/mrm.28435); L-curve: Hansen 1992 (doi:10.1137/1034115).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.differences import gradient
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.algorithms.solvers import norm
from qsmxt.errors import InputError
from qsmxt.registry.methods import Progress

CRITERIA = ("equalisation", "discrepancy", "lcurve")
#: Weights between which the criteria look, ppm mm.
RANGE = (1e-5, 3e-3)
#: Log ratio of the amplitudes at which frequencies count as equal.
EQUAL = -0.15
#: Quick solutions: iterations and relative change.
QUICK = (20, 1e-2)
#: Weights on trial for the criteria that need a curve, and bisections for the other.
TRIALS = 9
BISECTIONS = 7


def weight_of(
    weight: float | str, criterion: str, domain: Domain, field_noise: np.ndarray | None, penalty: float = 100.0
) -> float:
    """``weight``, or the one that ``criterion`` finds if it is ``"auto"`` (ppm mm)."""
    if weight != "auto":
        return float(weight)
    if criterion == "equalisation":
        return equalised(domain, penalty)
    if criterion == "discrepancy":
        if field_noise is None:
            raise InputError(
                "field_noise: expected a noise map for the discrepancy principle, found none; use another criterion"
            )
        noise = domain.crop.extract(np.asarray(field_noise, dtype=np.float32))[domain.mask]
        return by_discrepancy(domain, float(np.sqrt(np.sum(noise.astype(np.float64) ** 2))), penalty)
    return by_lcurve(domain, penalty)


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
    data = engine.forward(engine.send(domain.field))
    engine.scale(data, engine.send(dipole / gain))
    gain = np.float32(rho) / gain
    gain[0, 0, 0] = 0
    del dipole
    gain = engine.send(gain)
    shrinkage = engine.shrinkage(grid)
    chi = engine.inverse(engine.copy(data), grid.shape)
    right = engine.copy(chi)
    for iteration in range(iterations):
        shrinkage.step(chi, 1 / penalty, right)
        spectrum = engine.forward(right)
        engine.update(spectrum, gain, data)
        old, chi = chi, engine.inverse(spectrum, grid.shape)
        if progress:
            progress((iteration + 1) / iterations)
        if engine.change(chi, old) < tolerance:
            break
    return chi


def equalised(domain: Domain, penalty: float = 100.0) -> float:
    """Weight with equal amplitudes near and far from the cone."""
    ratio = _amplitude_ratio(domain)
    low, high = (float(np.log(w)) for w in RANGE)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if ratio(total_variation(domain, float(np.exp(middle)), penalty, *QUICK)) > EQUAL:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def by_discrepancy(domain: Domain, expected: float, penalty: float = 100.0) -> float:
    """Largest weight on trial whose residual norm in the mask (ppm) is at most ``expected``."""
    residuals, _, weights = _curve(domain, penalty)
    good = np.flatnonzero(residuals <= expected)
    return float(weights[good[-1]] if good.size else weights[int(np.argmin(residuals))])


def by_lcurve(domain: Domain, penalty: float = 100.0) -> float:
    """Weight at the corner of the L-curve."""
    residuals, variations, weights = _curve(domain, penalty)
    if not residuals.all() or not variations.all():
        return float(weights[weights.size // 2])
    t = np.log(weights)
    x, y = 2 * np.log(residuals), np.log(variations)
    dx, dy = np.gradient(x, t), np.gradient(y, t)
    curvature = (dx * np.gradient(dy, t) - dy * np.gradient(dx, t)) / np.maximum(dx**2 + dy**2, 1e-12) ** 1.5
    return float(weights[1 + int(np.argmax(curvature[1:-1]))])


def _curve(domain: Domain, penalty: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual norms, total variations and their weights, ascending."""
    weights = np.geomspace(*RANGE, TRIALS)
    dipole = domain.dipole()
    points = []
    for weight in weights:
        chi = total_variation(domain, float(weight), penalty, *QUICK)
        residual = np.where(domain.mask, fourier.filtered(chi, dipole) - domain.field, np.float32(0))
        points.append((norm(residual), float(np.abs(gradient(chi, domain.grid)).sum(dtype=np.float64))))
    return np.array([p[0] for p in points]), np.array([p[1] for p in points]), weights


def _amplitude_ratio(domain: Domain) -> Callable[[np.ndarray], float]:
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
