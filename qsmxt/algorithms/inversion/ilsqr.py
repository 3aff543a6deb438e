r"""Iterative LSQR with removal of streaks (iLSQR).

1. :math:`\chi_0` is an early-stopped least-squares solution of :math:`\sqrt{W}(D\chi - f) = 0`. :math:`W` distrusts
   voxels with a large Laplacian of the field: 1 up to its ``trusted`` percentile, falling to 0 at its maximum.
2. A quick estimate :math:`\chi_f` (FastQSM) starts from :math:`X = \mathrm{sign}(D) F f`, replaces it near the cone
   (weights: :math:`|D|^{0.001}` stretched from its 1st to its 30th percentile) twice by its spherical mean of 3 mm in
   the mask, and is fitted to thresholded division by a line. Only its edges are used.
3. Streaks :math:`\chi_s` live where :math:`|D| < c` (``cone``). They are what is left of the gradient of
   :math:`\chi_0` where the quick estimate has no edges:

   .. math:: \min_{\chi_s} \sum_i \|w_i(\partial_i\chi_0 - \partial_i\chi_s)\|_2^2, \qquad \chi = \chi_0 - \chi_s,

   :math:`w_i` falling from 1 to 0 between two percentiles (``edges``) of :math:`|\partial_i\chi_f|` in the mask.

:math:`f` is the local field (ppm, ``(x, y, z)``), :math:`D` the unit dipole. Both least-squares problems are solved by
LSMR (:mod:`qsmxt.algorithms.solvers`).

Departures from the paper: percentiles are taken in the mask; :math:`W` is lowered from the 99th instead of the 60th
percentile and edges are sought between the 60th and 90th instead of the 50th and 70th (digital head, 1.5 mm: NRMSE
36.7 instead of 57 %: the field near strong sources is what tells about them); numbers of iterations are fixed.

Parameters
    ``iterations``, ``tolerance``: where the first solution stops, which is its regularisation. ``streak_iterations``:
    of the second problem; 0 leaves the streaks in. ``criterion``: how a number of ``auto`` is found
    (:mod:`~qsmxt.algorithms.inversion.regularisation`).

References
----------
Li et al. 2015 (doi:10.1016/j.neuroimage.2014.12.043); LSMR: Fong and Saunders 2011 (doi:10.1137/10079687X).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier, kernels, parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.engine import HOST, Engine, placed, to_host
from qsmxt.algorithms.inversion.regularisation import CRITERIA, Trials, chosen, numbers
from qsmxt.algorithms.quantiles import quantiles
from qsmxt.algorithms.solvers import lsmr_of_data, lsmr_of_normal
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter, portion

#: Radius of the spherical mean (mm) and threshold of the division in the quick estimate.
QUICK_RADIUS = 3.0
QUICK_THRESHOLD = 1 / 8

#: Most and fewest iterations between which the criteria look, and the log ratio of amplitudes near and far from the
#: cone at which they count as equal in the first solution.
NUMBERS = (40, 3)
EQUAL = -0.7


@dataclass(frozen=True)
class ILSQRParameters:
    """Parameters of :func:`ilsqr`."""

    iterations: int = parameter(
        12, at_least=1, auto=True, help="most iterations of the first solution; more restore contrast"
    )
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a number of auto is found")
    tolerance: float = parameter(0.01, at_least=0, help="normal residual at which the first solution stops")
    trusted: float = parameter(
        99.0, unit="%", at_least=0, below=100, help="percentile of the Laplacian below which a voxel is fully trusted"
    )
    cone: float = parameter(0.1, above=0, below=2 / 3, help="dipole value below which streaks are sought")
    edges: tuple[float, float] = parameter(
        (60.0, 90.0), unit="%", at_least=0, at_most=100, help="percentiles between which a difference becomes an edge"
    )
    streak_iterations: int = parameter(15, at_least=0, help="iterations for the streaks")


@method(
    stage="inversion",
    key="ilsqr",
    title="Iterative LSQR",
    consumes=("local_field", "mask"),
    optional=("field_noise",),
    produces=("chi",),
    parameters=ILSQRParameters,
    references=("li2015", "fong2011"),
    sentence="Susceptibility was computed by iterative LSQR ({iterations} and {streak_iterations} iterations).",
    cost=Cost(bytes_per_voxel=42, seconds_per_megavoxel=0.5),
    on_device=True,
)
def ilsqr(
    local_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: ILSQRParameters = ILSQRParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
) -> np.ndarray:
    """Susceptibility (ppm) from the local field (ppm) with streaks removed; see the module.

    Parameters
    ----------
    local_field
        Relative field of the sources in the mask, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`ILSQRParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    field_noise
        Standard deviation of the field, ppm, float32 ``(x, y, z)``; only the criterion ``discrepancy`` uses it.

    Returns
    -------
    numpy.ndarray
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the local field is complex or has
        NaN or Inf in the mask; if the criterion ``discrepancy`` is chosen without ``field_noise``.

    Examples
    --------
    >>> from qsmxt.algorithms.inversion.ilsqr import ilsqr
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi = ilsqr(head.local_field, head.mask, head.grid)
    >>> nrmse(chi, head.chi, head.mask) < 30  # percent of the true susceptibility
    True
    """
    engine, domain = placed("local_field", local_field, mask, grid)
    dipole = domain.dipole()
    count = number_of_iterations(domain, dipole, parameters, to_host(field_noise))
    told = portion(progress, 0.0, 0.4)
    chi = first_solution(domain, dipole, replace(parameters, iterations=count), engine, told)
    if progress:
        progress(0.4)
    if parameters.streak_iterations:
        slopes, inside = engine.gradient(quick_estimate(domain, dipole, engine), domain.grid), engine.send(domain.mask)
        packing, limits = engine.packing(domain.mask), [percent / 100 for percent in parameters.edges]
        for axis in range(3):
            part = slopes[axis, ...]
            low, high = engine.quantiles(engine.xp.abs(packing.pack(part)), limits)
            engine.run(_smooth, _smooth_form, part.shape[0], part, low, high, inside)
        cone = np.abs(dipole) < np.float32(parameters.cone)
        del dipole
        cone[0, 0, 0] = False
        streaks = Streaks(slopes, cone, domain, engine)
        chi -= _streaks(chi, streaks, parameters.streak_iterations, portion(progress, 0.4, 0.6))
    if progress:
        progress(1.0)
    return engine.finish(domain, chi)


def number_of_iterations(
    domain: Domain, dipole: np.ndarray, parameters: ILSQRParameters, field_noise: np.ndarray | None
) -> int:
    """Iterations of the first solution: those given, or as many as the criterion finds."""

    def solve(count: int) -> np.ndarray:
        return first_solution(domain, dipole, replace(parameters, iterations=count))

    trials = Trials("iterations", numbers(*NUMBERS), solve, domain, EQUAL)
    return int(chosen(parameters.iterations, parameters.criterion, trials, field_noise))


def first_solution(
    domain: Domain,
    dipole: np.ndarray,
    parameters: ILSQRParameters,
    engine: Engine = HOST,
    progress: Progress | None = None,
) -> Any:
    r"""Weighted, early-stopped least squares, zero outside the mask.

    With the operator :math:`A = RD`, :math:`R = \sqrt{W}`, the map is :math:`A^T z` and z has a number for every voxel
    of the mask (:func:`qsmxt.algorithms.solvers.lsmr_of_data`).
    """
    xp, support, packing = engine.xp, domain.support, engine.packing(domain.mask)
    field = engine.send(domain.field)
    bend = packing.pack(xp.abs(engine.divergence(engine.gradient(field, domain.grid), domain.grid)))
    root = xp.sqrt(1 - _stretched(engine, bend, *engine.quantiles(bend, (parameters.trusted / 100, 1.0))))
    square, volume = engine.send(dipole * dipole), engine.empty(domain.grid.shape)

    def gram(y: Any) -> Any:
        y = packing.pack(engine.filtered(packing.unpack(root * y, volume), square, support, support, volume))
        y *= root
        return y

    right = root * packing.pack(field)
    z = lsmr_of_data(
        gram,
        right,
        tolerance=parameters.tolerance,
        iterations=parameters.iterations,
        engine=engine,
        progress=progress,
    ).x
    chi = engine.filtered(packing.unpack(root * z, volume), engine.send(dipole), support, support, volume)
    chi *= engine.send(domain.mask.astype(np.float32))
    return chi


def quick_estimate(domain: Domain, dipole: np.ndarray, engine: Engine = HOST) -> Any:
    """FastQSM, ppm, zero outside the mask."""
    shape, support, length = domain.grid.shape, domain.support, dipole.shape[0]
    xp, packing = engine.xp, engine.packing(domain.mask)
    spectrum = engine.forward(engine.send(domain.field), support)
    other = xp.empty_like(spectrum)
    engine.run(_divide, _divide_form, length, spectrum, engine.send(dipole), np.float32(QUICK_THRESHOLD), other)
    reference = packing.pack(engine.inverse(other, shape, support))
    sphere = engine.send(kernels.spherical_mean(domain.grid, QUICK_RADIUS))
    weights, inside = engine.send(_away_from_cone(dipole)), engine.send(domain.mask.astype(np.float32))
    for _ in range(2):
        smooth = engine.inverse(engine.copy(spectrum), shape, support)
        smooth *= inside
        engine.run(_exchange, _exchange_form, length, spectrum, engine.forward(smooth, support), sphere, weights)
    quick = packing.pack(engine.inverse(spectrum, shape, support))
    centre, level = (float(xp.sum(values, dtype=xp.float64)) / values.shape[0] for values in (quick, reference))
    x, y = quick - centre, reference - level
    spread = engine.product(x, x)
    slope = engine.product(x, y) / spread if spread > 0 else 1.0
    return packing.unpack(slope * x + level)


def _away_from_cone(dipole: np.ndarray) -> np.ndarray:
    """:math:`|D|^{0.001}` stretched from its 1st to its 30th percentile."""
    weights = np.abs(dipole)
    low, high = quantiles(weights, (0.01, 0.3)).astype(np.float64) ** 0.001
    parallel.run(_stretch_power, weights.shape[0], weights, low, max(high - low, 1e-12))
    return weights


class Streaks:
    r"""The operator A of the streaks: the weighted gradient of what lies inside a cone of k-space.

    A map inside the cone is told by its spectrum there, scaled so that its norm is that of the map.

    Attributes
    ----------
    weights
        Squared weights of the gradient, float32 ``(3, x, y, z)``, zero outside the mask of ``domain``.
    packing
        Of half spectra inside the cone, bool.
    engine
        Where the weights are.
    """

    def __init__(self, weights: Any, cone: np.ndarray, domain: Domain, engine: Engine = HOST) -> None:
        self.weights, self.grid, self.engine = weights, domain.grid, engine
        times = fourier.spectrum_weights(domain.grid).ravel()
        self.packing = engine.packing(cone, np.sqrt(times / np.float32(domain.mask.size)))
        near = domain.mask.copy()
        for axis in (0, 1):
            near |= np.roll(near, 1, axis)
        self._image = engine.empty(domain.grid.shape)
        self.support, self.rows = fourier.Support.of(near), np.asarray(near.any(axis=2))

    def volume(self, spectrum: Any, support: fourier.Support | None = None) -> Any:
        """The map of a packed ``spectrum``."""
        return self.engine.inverse(self.packing.unpack_spectrum(spectrum), self.grid.shape, support)

    def right(self, volume: Any) -> tuple[Any, float]:
        r""":math:`A^T b` and :math:`\|b\|` for b the weighted gradient of ``volume``, zero outside the mask."""
        image = self.engine.stiffness(volume, self.weights, self.grid, self._image, self.rows)
        return self._packed(image), math.sqrt(max(0.0, self.engine.product(volume, image)))

    def normal(self, spectrum: Any) -> Any:
        """:math:`A^T A` of a packed ``spectrum``."""
        volume = self.volume(spectrum, self.support)
        return self._packed(self.engine.stiffness(volume, self.weights, self.grid, self._image, self.rows))

    def _packed(self, volume: Any) -> Any:
        return self.packing.pack_spectrum(self.engine.forward(volume, self.support))


def _streaks(chi: Any, operator: Streaks, iterations: int, progress: Progress | None) -> Any:
    """The part of ``chi`` inside the cone that smooths it where the weights are high."""
    right, size = operator.right(chi)
    found = lsmr_of_normal(
        operator.normal,
        right,
        size,
        tolerance=1e-3,
        iterations=iterations,
        engine=operator.engine,
        progress=progress,
    )
    return operator.volume(found.x)


def _stretched(engine: Engine, values: Any, low: np.float32, high: np.float32) -> Any:
    """``values`` on a line from 0 at ``low`` to 1 at ``high``, cut there."""
    if high <= low:
        return engine.xp.zeros_like(values)
    return engine.xp.clip((values - float(low)) / float(high - low), 0, 1)


def _smooth_form(xp: Any, slope: Any, low: float, high: float, mask: Any) -> None:
    weight = xp.ones_like(slope)
    if high > low:
        weight -= xp.clip((xp.abs(slope) - low) / (high - low), 0.0, 1.0)
    slope[...] = xp.where(mask, weight * weight, xp.zeros_like(slope))


def _divide_form(xp: Any, spectrum: Any, dipole: Any, threshold: float, out: Any) -> None:
    limited = xp.clip(xp.abs(dipole), threshold, None)
    out[...] = spectrum / xp.where(dipole >= 0, limited, -limited)
    out[0, 0, 0] = 0
    spectrum *= xp.sign(dipole)


def _exchange_form(xp: Any, spectrum: Any, other: Any, transfer: Any, weights: Any) -> None:
    spectrum *= weights
    spectrum += (1 - weights) * transfer * other


@kernel
def _smooth(start, stop, slope, low, high, mask):
    """Squared weight of a slope: 1 up to ``low``, 0 from ``high`` on in size and outside the mask."""
    fall = np.float32(1) / (high - low) if high > low else np.float32(0)
    for i in range(start, stop):
        for j in range(slope.shape[1]):
            row, inside = slope[i, j], mask[i, j]
            for k in range(row.size):
                part = (abs(row[k]) - low) * fall
                part = part if part > 0 else np.float32(0)
                weight = np.float32(1) - (part if part < 1 else np.float32(1))
                row[k] = weight * weight if inside[k] else np.float32(0)


@kernel
def _divide(start, stop, spectrum, dipole, threshold, out):
    """Division by the limited dipole into ``out``; ``spectrum`` takes the sign of the dipole. Nothing at the origin."""
    for i in range(start, stop):
        for j in range(dipole.shape[1]):
            row, values, into = spectrum[i, j], dipole[i, j], out[i, j]
            for k in range(values.size):
                d = values[k]
                size = abs(d) if abs(d) > threshold else threshold
                sign = np.float32(1) if d > 0 else (np.float32(-1) if d < 0 else np.float32(0))
                into[k] = row[k] * ((np.float32(1) if d >= 0 else np.float32(-1)) / size)
                row[k] *= sign
    if start == 0:
        out[0, 0, 0] = 0


@kernel
def _stretch_power(start, stop, values, low, width):
    for i in range(start, stop):
        for j in range(values.shape[1]):
            for k in range(values.shape[2]):
                v = values[i, j, k]
                power = np.exp(0.001 * np.log(np.float64(v))) if v > 0 else 0.0
                values[i, j, k] = min(max((power - low) / width, 0.0), 1.0)


@kernel
def _exchange(start, stop, spectrum, other, transfer, weights):
    """``spectrum`` by its weights, and the rest from ``other`` times ``transfer``."""
    for i in range(start, stop):
        for j in range(weights.shape[1]):
            row, new, factor, weight = spectrum[i, j], other[i, j], transfer[i, j], weights[i, j]
            for k in range(row.size):
                row[k] = weight[k] * row[k] + ((np.float32(1) - weight[k]) * factor[k]) * new[k]
