r"""Chi-separation: both sources at once from the local field and the relaxation, with a prior on both maps.

With :math:`p = \chi_+ \ge 0` and :math:`n = -\chi_- \ge 0`,

.. math::

    \min_{p, n \ge 0} \tfrac12 \big\|W\,[D(p - n) - f]\big\|_2^2
        + \tfrac{\mu}{2} \big\|w\,[p + n - \rho]\big\|_2^2 + \lambda\, [R(p) + R(n)] ,

f being the local field (ppm), D the dipole of a voxel ("greens" in :mod:`qsmxt.algorithms.kernels`: positivity bears no
ringing), W the mask or, given the noise of the field, its inverse in the mask, :math:`\rho` (ppm) the sum of the
sources from relaxation (:mod:`qsmxt.algorithms.separation.sources`), w 1 or, given the noise of R2*, its inverse
(median 1, at most 3), and R

* ``l1``: total variation :math:`\|\nabla p\|_1`, as the MEDI variant of the paper penalises gradients;
* ``l2``: :math:`\tfrac12 \|\nabla p\|_2^2` (per mm), as variants that end in linear least squares (LSQR) do.

A map from an inversion of the same field, :math:`\chi`, shows where sources outside the mask and remnants of the
background contradict the model; there :math:`W^2` is divided by :math:`1 + (|f - D\chi| / \eta)^2`, :math:`\eta` being
the ``discrepancy``.

That neither source is negative bounds the susceptibility by :math:`\rho` in every voxel, which fills the zero cone of
the dipole and fixes the mean. Without ``chi`` from an inversion only those weights are missing.

Solution
    Sum :math:`a = p + n` and difference :math:`t = p - n` decouple in Fourier space. The alternating direction method
    of multipliers splits the gradients (penalty :math:`\rho_1 = 30 \lambda`), positivity (:math:`\rho_2`) and, so that
    weights can be respected, the data (z of the field, :math:`\mu_d`, and s of the relaxation, :math:`\mu_s = \mu/5`;
    :mod:`qsmxt.algorithms.inversion.splitting`):

    .. math::

        \hat t &= \frac{\mu_d D \hat z + \tfrac12 (\hat g_p - \hat g_n)}{\mu_d D^2 + \tfrac12 (\rho_1 L + \rho_2)}, &
        \hat a &= \frac{\mu_s \hat s + \tfrac12 (\hat g_p + \hat g_n)}{\mu_s + \tfrac12 (\rho_1 L + \rho_2)} .

    Six transforms an iteration.

Weights
    With ``coupling`` "auto", :math:`\mu = \lambda / 0.8\,\sigma_\rho` and :math:`\sigma_\rho` the noise of
    :math:`\rho`, taken from third differences of neighbours: steps below the noise are then flattened.

Accuracy
    On a digital head with known sources (2.5 mm, four echoes to 28 ms, signal-to-noise ratio 100, not the anatomy that
    weights were chosen on), the similarity (XSIM) of both maps is 0.92 and 0.98 at 7 T, 0.88 and 0.96 at 3 T; that of
    the closed form 0.83 and 0.95, 0.73 and 0.91. Without the noise of R2* it is 0.90 and 0.96 at 7 T, and the errors
    are twice as large. With R2* alone it is 0.82 and 0.93, 0.83 and 0.92 (closed form 0.82 and 0.92, 0.83 and 0.89).
    What is left at 3 T is the texture of white matter, 0.003 ppm in the paramagnetic map, of which R2' with a noise of
    1 1/s (0.008 ppm) tells no more. ``l2`` does not beat the closed form.

    From wrapped phase with the default chain the weights by ``chi`` decide: without, streaks of what the local field
    has wrong cross the maps. On a head at 3 T (1.5 mm, haemorrhage) the NRMSE of the sum of both maps was 34 %
    without, 15 % with them, and 21 % in the closed form.

Departures from the paper
    Total variation without edges from the magnitude, splitting instead of Gauss-Newton steps, one relaxivity.

Parameters
    ``prior``: R. ``weight``: :math:`\lambda`. ``tolerance``, ``iterations``: where the iteration ends. ``relaxivity``,
    ``r2star_relaxivity``: :math:`D_r` of R2', and of R2* where it stands in, at 3 T.

References
----------
Shin et al. 2021 (doi:10.1016/j.neuroimage.2021.118371).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.differences import Shrinkage
from qsmxt.algorithms.domain import Domain, checked_mask, masked
from qsmxt.algorithms.inversion.splitting import DATA_PENALTY, SquaredData
from qsmxt.algorithms.separation.sources import PRODUCES, Pair, Rates, RelaxivityParameters
from qsmxt.algorithms.signal import SAMPLE
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Noise of rho times this is the width of steps that the automatic coupling flattens.
NOISE_FACTOR = 0.8

#: Penalty of the gradients as a multiple of the weight, 1/(ppm mm).
GRADIENT_PENALTY = 30.0

#: Penalty of the sum of the sources as a multiple of the coupling; a small one lets them move where R2* is unknown.
RATE_PENALTY = 0.2

#: Penalty of positivity.
SIGN_PENALTY = 0.01


@dataclass(frozen=True)
class ChiSeparationParameters(RelaxivityParameters):
    """Parameters of :func:`chiseparation`."""

    prior: str = parameter("l1", choices=("l1", "l2"), help="norm of the gradients that are penalised")
    weight: float = parameter(
        5e-5, above=0, unit="ppm mm", help="weight of the prior on the gradients; larger is smoother"
    )
    coupling: float | str = parameter(
        "auto", above=0, auto=True, help="weight of the relaxation relative to the field; auto follows from its noise"
    )
    discrepancy: float = parameter(
        2e-3, above=0, unit="ppm", help="field that the map of the inversion does not explain, which halves its weight"
    )
    tolerance: float = parameter(1e-3, at_least=0, help="relative change of the maps at which iteration stops")
    iterations: int = parameter(100, at_least=1, help="most iterations")


@method(
    stage="separation",
    key="chiseparation",
    title="Chi-separation",
    consumes=("local_field", "r2star", "mask", "field_strength"),
    optional=("r2prime", "r2", "field_noise", "r2star_noise", "chi"),
    produces=PRODUCES,
    parameters=ChiSeparationParameters,
    references=("shin2021",),
    sentence=(
        "Para- and diamagnetic sources were separated by chi-separation ({prior} prior on gradients, weight "
        "{weight:g}; relaxivity at 3 T {relaxivity:g} 1/s/ppm for R2', or {r2star_relaxivity:g} 1/s/ppm for R2* "
        "without R2)."
    ),
    cost=Cost(bytes_per_voxel=130, seconds_per_megavoxel=4.0),
)
def chiseparation(
    local_field: np.ndarray,
    r2star: np.ndarray,
    mask: np.ndarray,
    field_strength: float,
    grid: Grid,
    parameters: ChiSeparationParameters = ChiSeparationParameters(),
    *,
    progress: Progress | None = None,
    r2prime: np.ndarray | None = None,
    r2: np.ndarray | None = None,
    field_noise: np.ndarray | None = None,
    r2star_noise: np.ndarray | None = None,
    chi: np.ndarray | None = None,
) -> Pair:
    """Paramagnetic and diamagnetic susceptibility (ppm); see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    r2star
        Effective transverse relaxation rate, 1/s, float32 ``(x, y, z)``.
    mask
        Where the field is known and sources are, bool ``(x, y, z)``.
    field_strength
        Strength of B0, T, float.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`ChiSeparationParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    r2prime
        Reversible transverse relaxation rate, 1/s, float32 ``(x, y, z)``. Without it ``r2star`` less ``r2`` stands in.
    r2
        Transverse relaxation rate of a spin echo, 1/s, float32 ``(x, y, z)``. Without it and ``r2prime``, R2* with a
        relaxivity of its own stands in.
    field_noise
        Standard deviation of the field, ppm, float32 ``(x, y, z)``; its inverse, scaled to a median of 1 and cut at 3,
        weights the field. Without it all voxels weigh the same.
    r2star_noise
        Standard deviation of R2*, 1/s, float32 ``(x, y, z)``; its inverse weights the relaxation in the same way.
    chi
        Susceptibility from an inversion of the same field, ppm, float32 ``(x, y, z)``, any reference, which tells where
        the field is to be trusted. Without it the field is trusted everywhere.

    Returns
    -------
    chi_paramagnetic
        Susceptibility of paramagnetic sources, at least zero, ppm, float32 ``(x, y, z)``; zero outside the mask.
    chi_diamagnetic
        Susceptibility of diamagnetic sources, at most zero, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If a noise has no positive value in the mask, a shape is not that of the grid, the mask is empty or not of 0 and
        1, an array has NaN or Inf in the mask, or the field strength is none.

    Examples
    --------
    Every voxel of the phantom has one of the sources, whose size then tells R2':

    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> from qsmxt.algorithms.separation.chiseparation import chiseparation
    >>> reversible = 137 * abs(head.chi)  # 1/s at 3 T
    >>> arrays = head.local_field, head.r2star, head.mask, head.field_strength
    >>> sources = chiseparation(*arrays, head.grid, r2prime=reversible)
    >>> truth = head.chi_paramagnetic, head.chi_diamagnetic
    >>> [nrmse(a, b, head.mask) < 1 for a, b in zip(sources, truth)]  # percent of the true sources
    [True, True]
    """
    region = checked_mask(mask, grid)
    source_sum = Rates(r2star, field_strength, r2prime, r2).source_sum(region, grid, parameters)
    domain = Domain.around("local_field", local_field, region, grid)
    weights = [domain.weights_or_mask(noise) ** 2 for noise in (field_noise, r2star_noise)]
    if chi is not None:
        left = unexplained(domain, masked("chi", chi, region, domain.crop)) / np.float32(parameters.discrepancy)
        weights[0] /= 1 + left * left
    solver = _Solver(domain, domain.crop.extract(source_sum), weights, parameters)
    for iteration in range(parameters.iterations):
        moved = solver.step()
        if progress:
            progress((iteration + 1) / parameters.iterations)
        if iteration > 5 and moved < parameters.tolerance:
            break
    return domain.finish(solver.kept[0]), -domain.finish(solver.kept[1])


def unexplained(domain: Domain, chi: np.ndarray) -> np.ndarray:
    """What of the field on the box (ppm) neither ``chi`` (ppm) nor a constant added to it explains."""
    dipole = kernels.dipole(domain.grid, "greens")
    left = np.where(domain.mask, domain.field - fourier.filtered(chi, dipole), np.float32(0))
    constant = np.where(domain.mask, fourier.filtered(domain.mask.astype(np.float32), dipole), np.float32(0))
    power = float(np.vdot(constant, constant))
    return left - np.float32(np.vdot(constant, left) / power) * constant if power > 0 else left


def map_noise(volume: np.ndarray, mask: np.ndarray) -> float:
    """Noise of a map from third differences of neighbours inside the mask (weights 1, -3, 3, -1); 0 if too small."""
    found = []
    for axis in range(3):
        v, m = np.moveaxis(volume, axis, 0), np.moveaxis(mask, axis, 0)
        good = m[:-3] & m[1:-2] & m[2:-1] & m[3:]
        third = (v[3:] - 3 * v[2:-1] + 3 * v[1:-2] - v[:-3])[good]
        if third.size >= 20:
            third = np.abs(third[:: max(1, third.size // SAMPLE)])
            found.append(float(np.median(third)) / (0.67449 * math.sqrt(20)))
    return min(found, default=0.0)


class _Solver:
    """Splitting solver; ``kept`` are the non-negative maps p and n on the box."""

    def __init__(
        self, domain: Domain, source_sum: np.ndarray, weights: list[np.ndarray], parameters: ChiSeparationParameters
    ) -> None:
        grid, weight = domain.grid, parameters.weight
        self.grid, self.mask = grid, domain.mask
        coupling = parameters.coupling
        if isinstance(coupling, str):
            noise = max(map_noise(source_sum, domain.mask), 1e-4)
            coupling = weight / (NOISE_FACTOR * noise)
        self.l1 = parameters.prior == "l1"
        self.penalty = np.float32(GRADIENT_PENALTY * weight if self.l1 else weight)
        half = np.float32(0.5) * (self.penalty * kernels.negative_laplacian(grid) + np.float32(SIGN_PENALTY))
        self.dipole = kernels.dipole(grid, "greens")
        mu = np.float32(DATA_PENALTY)
        self.for_difference = 1 / (mu * self.dipole * self.dipole + half)
        self.for_data = mu * self.dipole * self.for_difference
        self.coupling = np.float32(coupling * RATE_PENALTY)
        self.for_sum = 1 / (self.coupling + half)
        self.data = SquaredData(domain.field, weights[0], DATA_PENALTY)
        self.relaxation = SquaredData(source_sum, weights[1], RATE_PENALTY)
        self.priors = [Shrinkage(grid), Shrinkage(grid)] if self.l1 else []
        start = source_sum * np.minimum(weights[1], np.float32(1))
        self.total = np.empty_like(start)
        self.relaxation(start, self.total)
        self.kept = [np.float32(0.5) * start for _ in range(2)]
        self.dual = [np.zeros(grid.shape, dtype=np.float32) for _ in range(2)]
        self.source = [np.empty(grid.shape, dtype=np.float32) for _ in range(2)]
        self._first_spectra()

    def _first_spectra(self) -> None:
        """Planes between transforms: of the difference of the sources, of the data, and of the sum of the sources."""
        shape = self.grid.shape
        first = np.float32(SIGN_PENALTY) * self.kept[0] + self.coupling * self.total
        self._spectra = [np.zeros_like(fourier.empty_spectrum(shape)) for _ in range(3)]
        for spectrum, make in zip(self._spectra[1:], (self.data.first_planes, fourier.planes_of(first)), strict=True):
            fourier.planes_forward(spectrum, shape[2], make)

    def step(self) -> float:
        """One iteration; returns the relative change of the map that changed most."""
        difference, data, total = self._spectra
        nz = self.grid.shape[2]
        transfers = self.for_difference, self.for_data, self.dipole, self.for_sum
        fourier.rows_changed(self._spectra, _combine_rows, *transfers)
        fourier.planes_exchanged(data, nz, partial(self.data.planes, None))
        fourier.planes_inverse(total, nz, self._take_total)
        fourier.planes_inverse(difference, nz, self._take_difference)
        shrink = [
            prior.planes(source, 1 / GRADIENT_PENALTY) for prior, source in zip(self.priors, self.source, strict=False)
        ]
        moved: dict[int, np.ndarray] = {}
        fourier.planes_forward(difference, nz, partial(self._keep, shrink, moved))
        fourier.planes_forward(total, nz, fourier.planes_of(self.total))
        changes = np.sum([moved[start] for start in sorted(moved)], axis=0)
        return max(float(np.sqrt(part / norm)) if norm > 0 else 0.0 for part, norm in changes)

    def _take_total(self, start: int, stop: int, planes: np.ndarray) -> None:
        self.source[0][start:stop] = planes
        self.relaxation.planes(None, start, stop, planes)
        self.total[start:stop] = planes

    def _take_difference(self, start: int, stop: int, planes: np.ndarray) -> None:
        _part(planes, *(source[start:stop] for source in self.source))

    def _keep(
        self, shrink: list[fourier.Planes], moved: dict[int, np.ndarray], start: int, stop: int, planes: np.ndarray
    ) -> None:
        """Splits of gradients and sign of both sources, and what follows for their difference and sum."""
        right = [np.zeros_like(planes) for _ in range(2)]
        for make, own in zip(shrink, right, strict=False):
            make(start, stop, own)
        inside = self.mask[start:stop]
        gradient, sign = self.penalty if self.l1 else np.float32(0), np.float32(SIGN_PENALTY)
        moved[start] = np.array([
            _keep_positive(source[start:stop], inside, dual[start:stop], kept[start:stop], own, gradient, sign)
            for source, dual, kept, own in zip(self.source, self.dual, self.kept, right, strict=True)
        ])  # fmt: skip
        _compose(*right, self.coupling, self.total[start:stop], planes)


@kernel
def _combine_rows(start, stop, difference, data, total, for_difference, for_data, dipole, for_sum):
    """Spectra of the difference of the sources, of its field, and of their sum."""
    for x in range(difference.shape[0]):
        for y in range(start, stop):
            for z in range(difference.shape[2]):
                a, b, f, g = difference[x, y, z], data[x, y, z], for_difference[x, y, z], for_data[x, y, z]
                real, imag, d = f * a.real + g * b.real, f * a.imag + g * b.imag, dipole[x, y, z]
                difference[x, y, z] = complex(real, imag)
                data[x, y, z] = complex(d * real, d * imag)
                c, h = total[x, y, z], for_sum[x, y, z]
                total[x, y, z] = complex(h * c.real, h * c.imag)


@kernel
def _part(difference, positive, negative):
    """Both sources from their ``difference`` and their sum, which stands in ``positive``."""
    half = np.float32(0.5)
    for x in range(difference.shape[0]):
        for y in range(difference.shape[1]):
            for z in range(difference.shape[2]):
                a, t = positive[x, y, z], difference[x, y, z]
                positive[x, y, z] = half * (a + t)
                negative[x, y, z] = half * (a - t)


@kernel
def _keep_positive(source, mask, dual, kept, right, gradient, sign):
    """v = source + dual; kept = max(v, 0) in the mask; dual = v - kept; right = gradient right + sign (kept - dual).

    Returns the squares of the change of ``kept`` and of itself.
    """
    zero = np.float32(0)
    change, square = 0.0, 0.0
    for x in range(source.shape[0]):
        for y in range(source.shape[1]):
            moved: Any = zero
            size: Any = zero
            for z in range(source.shape[2]):
                v = source[x, y, z] + dual[x, y, z]
                k = max(v, zero) if mask[x, y, z] else zero
                d = k - kept[x, y, z]
                moved += d * d
                size += k * k
                kept[x, y, z] = k
                dual[x, y, z] = v - k
                right[x, y, z] = gradient * right[x, y, z] + sign * (k - (v - k))
            change += moved
            square += size
    return change, square


@kernel
def _compose(first, second, coupling, total, difference):
    """Half the difference of both, and half their sum and the ``total``."""
    half = np.float32(0.5)
    for x in range(first.shape[0]):
        for y in range(first.shape[1]):
            for z in range(first.shape[2]):
                a, b = first[x, y, z], second[x, y, z]
                difference[x, y, z] = half * (a - b)
                total[x, y, z] = half * (a + b) + coupling * total[x, y, z]
