r"""Wavelet prior and mixed noise with all their parameters estimated (after AMP-PE).

The model of approximate message passing with built-in parameter estimation: wavelet coefficients :math:`c = \Psi\chi`
have a Laplace distribution of scale :math:`b_l` at level :math:`l`, the error of the field is a mixture of two
Gaussians, :math:`\sum_k \pi_k N(0, \sigma_k^2)`, one for good voxels and one for outliers. With the responsibilities
:math:`\gamma_k` of a voxel the maximum of the posterior is that of

.. math:: \min_\chi \tfrac12\sum_r w(r)\,\big(D\chi - f\big)^2 + \sigma_1^2 \sum_l \frac{\|c_l\|_1}{b_l}, \qquad
          w = \sum_k \gamma_k \frac{\sigma_1^2}{\sigma_k^2} .

Nothing needs to be set by hand: :math:`\sigma_1` is the median of the finest diagonal wavelets of the field over
0.6745, and rounds alternate between :math:`\pi_k, \sigma_2, \gamma_k` from the residual (expectation-maximisation),
:math:`b_l` from the mean absolute coefficient, and a few iterations for :math:`\chi`. :math:`f` is the
local field (ppm, ``(x, y, z)``), :math:`D` the unit dipole; :math:`\Psi` are three-dimensional Haar wavelets over
``levels`` levels, averaged over shifts against blocks.

Departure from the paper, and a large one: the estimate is found by ADMM
(:mod:`~qsmxt.algorithms.inversion.splitting`) instead of damped message passing, which need not converge for a
convolution; the name stands for the model.

Parameters
    ``levels``: how coarse the structures of the prior are. ``rounds``: of estimation, with ``iterations`` of ADMM in
    each, fewer if the map changes by less than ``tolerance``. ``start_weight``: of the Tikhonov map from which the
    first :math:`b_l` come. ``penalty``: of the wavelet split.

References
----------
Huang et al. 2023 (doi:10.1002/mrm.29722).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.domain import PADDING, Domain, checked_mask, masked
from qsmxt.algorithms.engine import Engine, engine_of, to_host_all
from qsmxt.algorithms.inversion.splitting import DATA_PENALTY, Splitting, SquaredData
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter, portion

#: Shifts over which the wavelet shrinkage is averaged.
SHIFTS = ((0, 0, 0), (1, 1, 1), (2, 2, 2), (5, 5, 5))

#: Factor of an orthonormal Haar step.
HALF_ROOT = float(np.float32(np.sqrt(0.5)))


@dataclass(frozen=True)
class AMPPEParameters:
    """Parameters of :func:`amppe`."""

    levels: int = parameter(3, at_least=1, at_most=5, help="levels of the wavelet decomposition")
    rounds: int = parameter(4, at_least=1, help="how often the parameters of prior and noise are estimated")
    iterations: int = parameter(12, at_least=1, help="most iterations for the map in a round")
    tolerance: float = parameter(
        0.0, at_least=0, help="relative change of the map at which a round ends; 0: after all iterations"
    )
    start_weight: float = parameter(
        3e-3, above=0, help="Tikhonov weight of the map from which the first estimates come"
    )
    penalty: float = parameter(
        3e-4, above=0, help="ADMM penalty of the wavelet split; larger ones need more iterations"
    )


@method(
    stage="inversion",
    key="amppe",
    title="Wavelet prior with parameter estimation (after AMP-PE)",
    consumes=("local_field", "mask"),
    produces=("chi",),
    parameters=AMPPEParameters,
    references=("huang2023",),
    sentence=(
        "Susceptibility was computed with a Laplace prior on wavelet coefficients and two-component noise, all "
        "parameters estimated from the data (after AMP-PE)."
    ),
    cost=Cost(bytes_per_voxel=87, seconds_per_megavoxel=10),
    status="experimental",
    on_device=True,
)
def amppe(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: AMPPEParameters = AMPPEParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the local field (ppm) without weights to choose; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`AMPPEParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the local field is complex or has
        NaN or Inf in the mask.

    Examples
    --------
    >>> from qsmxt.algorithms.inversion.amppe import amppe
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = amppe(head.local_field, head.mask, head.grid)
    >>> round(nrmse(chi, head.chi, head.mask))  # percent of the true susceptibility
    12
    """
    engine = engine_of(local_field)
    local_field, mask = to_host_all(local_field, mask)
    mask = checked_mask(mask, grid)
    domain = _dyadic(local_field, mask, grid, 2**parameters.levels)
    dipole = domain.dipole()
    field, inside = engine.send(domain.field), engine.send(domain.mask)
    start = engine.send(dipole / (dipole * dipole + np.float32(parameters.start_weight)))
    chi = engine.filtered(field, start) * engine.send(domain.mask.astype(np.float32))
    prior = _Wavelets(engine, domain.grid.shape, parameters.levels)
    symbol = np.ones_like(dipole)
    solver = Splitting(domain, prior, 1.0, parameters.penalty, DATA_PENALTY, dipole, symbol, engine=engine)
    data = SquaredData(domain.field, domain.mask.astype(np.float32), DATA_PENALTY, engine=engine)
    solver.start(data)
    noise = _Noise(_finest_variance(domain))
    filled = float(domain.mask.mean())
    for number in range(parameters.rounds):
        residual = engine.filtered(chi, solver.dipole) - field
        weights = engine.zeros(domain.grid.shape)
        weights[inside] = noise.weights(engine.xp, residual[inside])
        data.reweight(weights)
        scales = prior.sizes(chi)
        prior.limits = [noise.variance * filled / (max(s, 1e-12) * parameters.penalty) for s in scales]
        told = portion(progress, number / parameters.rounds, 1 / parameters.rounds)
        chi = solver.iterate(data, parameters.iterations, parameters.tolerance, told)
    return engine.finish(domain, chi)


def _finest_variance(domain: Domain) -> float:
    """Noise variance of the field from the median of its finest diagonal wavelets inside the mask."""
    inside = _analysis(np, domain.mask.astype(np.float32), 1)[0] > np.float32(0.99 * np.sqrt(8))
    finest = _analysis(np, domain.field, 1)[1][0][-1][inside]
    return float(np.median(np.abs(finest)) / 0.6745) ** 2 if finest.size else 0.0


class _Noise:
    """Mixture of two zero-mean Gaussians; ``variance`` is that of the good voxels and given."""

    def __init__(self, variance: float) -> None:
        self.variance = max(variance, 1e-16)
        self.wide = 100 * self.variance
        self.share = 0.01

    def weights(self, xp: Any, residual: Any) -> Any:
        """Weights of voxels relative to a good one, after a few steps of expectation-maximisation."""
        square = xp.astype(residual, xp.float64) ** 2
        for _ in range(5):
            gamma = self._outlier(xp, square)
            outliers = float(xp.sum(gamma))
            self.share = float(np.clip(outliers / square.shape[0], 1e-4, 0.5))
            self.wide = max(float(xp.sum(gamma * square)) / max(outliers, 1e-9), 25 * self.variance)
        gamma = self._outlier(xp, square)
        return xp.astype(1 - gamma + gamma * self.variance / self.wide, xp.float32)

    def _outlier(self, xp: Any, square: Any) -> Any:
        """Probability that a voxel belongs to the wide component."""
        odds = float(np.log((1 - self.share) / self.share) + 0.5 * np.log(self.wide / self.variance))
        log_odds = odds - 0.5 * square * (1 / self.variance - 1 / self.wide)
        return 1 / (1 + xp.exp(xp.clip(log_odds, -60, 60)))


class _Wavelets:
    """Split of the wavelet prior, its dual kept in image space; see ``splitting.Prior``."""

    def __init__(self, engine: Engine, shape: tuple[int, int, int], levels: int) -> None:
        self.engine, self.levels = engine, levels
        self.dual = engine.zeros(shape)
        self.limits: list[float] = [0.0] * levels

    def step(self, volume: Any, threshold: float, out: Any) -> Any:
        xp = self.engine.xp
        v = volume + self.dual
        z = self.engine.zeros(v.shape)
        for shift in SHIFTS:
            moved = xp.roll(v, shift, axis=(0, 1, 2))
            coefficients = _analysis(xp, moved, self.levels)
            for details, limit in zip(coefficients[1], self.limits, strict=True):
                t = float(np.float32(threshold * limit))
                for band in details:
                    band -= xp.clip(band, -t, t)
            z += xp.roll(_synthesis(self.engine, *coefficients), tuple(-s for s in shift), axis=(0, 1, 2))
        z /= len(SHIFTS)
        v -= z
        self.dual = v
        out[...] = z
        out -= v
        return out

    def sizes(self, volume: Any) -> list[float]:
        """Mean absolute detail coefficient of every level, fine to coarse."""
        xp, means = self.engine.xp, []
        for bands in _analysis(xp, volume, self.levels)[1]:
            every = xp.concat([xp.reshape(band, (-1,)) for band in bands])
            means.append(float(xp.sum(xp.abs(every), dtype=xp.float64)) / every.shape[0])
        return means


def _analysis(xp: Any, volume: Any, levels: int) -> tuple[Any, list[list[Any]]]:
    """Orthonormal Haar transform: coarsest means and, fine to coarse, seven detail bands a level."""
    details = []
    for _ in range(levels):
        bands = [volume]
        for axis in range(3):
            split = []
            for band in bands:
                moved = xp.moveaxis(band, axis, 0)
                even, odd = moved[0::2, ...], moved[1::2, ...]
                for part in ((even + odd), (even - odd)):
                    part *= HALF_ROOT
                    split.append(xp.moveaxis(part, 0, axis))
            bands = split
        volume = bands[0]
        details.append(bands[1:])
    return volume, details


def _synthesis(engine: Engine, means: Any, details: list[list[Any]]) -> Any:
    """Inverse of :func:`_analysis`."""
    xp = engine.xp
    for level in reversed(details):
        bands = [means, *level]
        for axis in (2, 1, 0):
            joined = []
            for total, difference in zip(bands[0::2], bands[1::2], strict=True):
                a, b = xp.moveaxis(total, axis, 0), xp.moveaxis(difference, axis, 0)
                whole = engine.empty((2 * a.shape[0], *a.shape[1:]))
                whole[0::2, ...] = (a + b) * HALF_ROOT
                whole[1::2, ...] = (a - b) * HALF_ROOT
                joined.append(xp.moveaxis(whole, 0, axis))
            bands = joined
        means = bands[0]
    return means


def _dyadic(field: np.ndarray, mask: np.ndarray, grid: Grid, multiple: int) -> Domain:
    """Domain whose lengths are multiples of ``multiple``."""
    tight = Crop.around(mask, grid)
    size = [b - a for a, b in zip(tight.start, tight.stop, strict=True)]
    gap = [int(np.ceil(PADDING / v)) for v in grid.voxel_size]
    shape = []
    for n, g in zip(size, gap, strict=True):
        length = n + g
        while length % multiple or fourier.fast_length(length) != length:
            length += 1
        shape.append(length)
    before = tuple((n - s) // 2 for n, s in zip(shape, size, strict=True))
    crop = Crop(grid, tight.start, tight.stop, before, grid.with_shape(tuple(shape)))  # type: ignore[arg-type]
    return Domain(crop, masked("local_field", field, mask, crop), crop.extract(mask))
