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
    each. ``start_weight``: of the Tikhonov map from which the first :math:`b_l` come. ``penalty``: of the wavelet
    split.

References
----------
Huang et al. 2023 (doi:10.1002/mrm.29722).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import fourier
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.domain import PADDING, Domain, checked_mask, masked
from qsmxt.algorithms.inversion.splitting import DATA_PENALTY, Splitting, SquaredData
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Shifts over which the wavelet shrinkage is averaged.
SHIFTS = ((0, 0, 0), (1, 1, 1), (2, 2, 2), (5, 5, 5))


@dataclass(frozen=True)
class AMPPEParameters:
    """Parameters of :func:`amppe`."""

    levels: int = parameter(3, at_least=1, at_most=5, help="levels of the wavelet decomposition")
    rounds: int = parameter(4, at_least=1, help="how often the parameters of prior and noise are estimated")
    iterations: int = parameter(12, at_least=1, help="iterations for the map in a round")
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
    cost=Cost(bytes_per_voxel=80, seconds_per_megavoxel=10),
    status="experimental",
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
    mask = checked_mask(mask, grid)
    domain = _dyadic(local_field, mask, grid, 2**parameters.levels)
    dipole = domain.dipole()
    chi = fourier.filtered(domain.field, dipole / (dipole * dipole + np.float32(parameters.start_weight)))
    chi *= domain.mask
    prior = _Wavelets(domain.grid.shape, parameters.levels)
    symbol = np.ones_like(dipole)
    solver = Splitting(domain, prior, 1.0, parameters.penalty, DATA_PENALTY, dipole, symbol)
    data = SquaredData(domain.field, domain.mask.astype(np.float32), DATA_PENALTY)
    solver.start(data)
    noise = _Noise(_finest_variance(domain))
    filled = float(domain.mask.mean())
    for number in range(parameters.rounds):
        residual = fourier.filtered(chi, dipole) - domain.field
        weights = np.zeros(domain.grid.shape, dtype=np.float32)
        weights[domain.mask] = noise.weights(residual[domain.mask])
        data.reweight(weights)
        scales = [float(np.abs(d).mean(dtype=np.float64)) for d in prior.details(chi)]
        prior.limits = [noise.variance * filled / (max(s, 1e-12) * parameters.penalty) for s in scales]
        chi = solver.iterate(data, parameters.iterations, 0)
        if progress:
            progress((number + 1) / parameters.rounds)
    return domain.finish(chi)


def _finest_variance(domain: Domain) -> float:
    """Noise variance of the field from the median of its finest diagonal wavelets inside the mask."""
    inside = _analysis(domain.mask.astype(np.float32), 1)[0] > np.float32(0.99 * np.sqrt(8))
    finest = _analysis(domain.field, 1)[1][0][-1][inside]
    return float(np.median(np.abs(finest)) / 0.6745) ** 2 if finest.size else 0.0


class _Noise:
    """Mixture of two zero-mean Gaussians; ``variance`` is that of the good voxels and given."""

    def __init__(self, variance: float) -> None:
        self.variance = max(variance, 1e-16)
        self.wide = 100 * self.variance
        self.share = 0.01

    def weights(self, residual: np.ndarray) -> np.ndarray:
        """Weights of voxels relative to a good one, after a few steps of expectation-maximisation."""
        square = residual.astype(np.float64) ** 2
        for _ in range(5):
            gamma = self._outlier(square)
            outliers = gamma.sum()
            self.share = float(np.clip(outliers / square.size, 1e-4, 0.5))
            self.wide = max(float(np.sum(gamma * square) / max(outliers, 1e-9)), 25 * self.variance)
        gamma = self._outlier(square)
        return (1 - gamma + gamma * self.variance / self.wide).astype(np.float32)

    def _outlier(self, square: np.ndarray) -> np.ndarray:
        """Probability that a voxel belongs to the wide component."""
        odds = np.log((1 - self.share) / self.share) + 0.5 * np.log(self.wide / self.variance)
        odds = odds - 0.5 * square * (1 / self.variance - 1 / self.wide)
        return 1 / (1 + np.exp(np.clip(odds, -60, 60)))


class _Wavelets:
    """Split of the wavelet prior, its dual kept in image space; see ``splitting.Prior``."""

    def __init__(self, shape: tuple[int, int, int], levels: int) -> None:
        self.levels = levels
        self.dual = np.zeros(shape, dtype=np.float32)
        self.limits: list[float] = [0.0] * levels

    def step(self, volume: np.ndarray, threshold: float, out: np.ndarray) -> np.ndarray:
        v = volume + self.dual
        z = np.zeros_like(v)
        for shift in SHIFTS:
            moved = np.roll(v, shift, axis=(0, 1, 2))
            coefficients = _analysis(moved, self.levels)
            for details, limit in zip(coefficients[1], self.limits, strict=True):
                t = np.float32(threshold * limit)
                for band in details:
                    band -= np.clip(band, -t, t)
            z += np.roll(_synthesis(*coefficients), tuple(-s for s in shift), axis=(0, 1, 2))
        z /= np.float32(len(SHIFTS))
        np.subtract(v, z, out=self.dual)
        np.subtract(z, self.dual, out=out)
        return out

    def details(self, volume: np.ndarray) -> list[np.ndarray]:
        """All detail coefficients of every level, fine to coarse."""
        return [np.concatenate([b.ravel() for b in bands]) for bands in _analysis(volume, self.levels)[1]]


def _analysis(volume: np.ndarray, levels: int) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Orthonormal Haar transform: coarsest means and, fine to coarse, seven detail bands a level."""
    details = []
    for _ in range(levels):
        bands = [volume]
        for axis in range(3):
            split = []
            for band in bands:
                moved = np.moveaxis(band, axis, 0)
                even, odd = moved[0::2], moved[1::2]
                for part in ((even + odd), (even - odd)):
                    part *= np.float32(np.sqrt(0.5))
                    split.append(np.moveaxis(part, 0, axis))
            bands = split
        volume = bands[0]
        details.append(bands[1:])
    return volume, details


def _synthesis(means: np.ndarray, details: list[list[np.ndarray]]) -> np.ndarray:
    """Inverse of :func:`_analysis`."""
    for level in reversed(details):
        bands = [means, *level]
        for axis in (2, 1, 0):
            joined = []
            for total, difference in zip(bands[0::2], bands[1::2], strict=True):
                a, b = np.moveaxis(total, axis, 0), np.moveaxis(difference, axis, 0)
                whole = np.empty((2 * a.shape[0], *a.shape[1:]), dtype=np.float32)
                whole[0::2] = (a + b) * np.float32(np.sqrt(0.5))
                whole[1::2] = (a - b) * np.float32(np.sqrt(0.5))
                joined.append(np.moveaxis(whole, 0, axis))
            bands = joined
        means = bands[0]
    return np.ascontiguousarray(means)


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
