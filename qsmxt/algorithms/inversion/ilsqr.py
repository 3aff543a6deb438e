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

from dataclasses import dataclass, replace

import numpy as np

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.differences import divergence, gradient
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.inversion.regularisation import CRITERIA, Trials, chosen, numbers
from qsmxt.algorithms.solvers import Operator, lsmr
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

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
    cost=Cost(bytes_per_voxel=69, seconds_per_megavoxel=4),
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
    domain = Domain.around("local_field", local_field, mask, grid)
    dipole = domain.dipole()
    parameters = replace(parameters, iterations=number_of_iterations(domain, dipole, parameters, field_noise))
    chi = first_solution(domain, dipole, parameters)
    if progress:
        progress(0.4)
    if parameters.streak_iterations:
        edges = gradient(quick_estimate(domain, dipole), domain.grid)
        for part in edges:
            part[...] = 1 - _stretched(np.abs(part), *parameters.edges, domain.mask)
        edges *= domain.mask
        chi -= _streaks(chi, edges, np.abs(dipole) < parameters.cone, domain.grid, parameters.streak_iterations)
    if progress:
        progress(1.0)
    return domain.finish(chi)


def number_of_iterations(
    domain: Domain, dipole: np.ndarray, parameters: ILSQRParameters, field_noise: np.ndarray | None
) -> int:
    """Iterations of the first solution: those given, or as many as the criterion finds."""

    def solve(count: int) -> np.ndarray:
        return first_solution(domain, dipole, replace(parameters, iterations=count))

    trials = Trials("iterations", numbers(*NUMBERS), solve, domain, EQUAL)
    return int(chosen(parameters.iterations, parameters.criterion, trials, field_noise))


def first_solution(domain: Domain, dipole: np.ndarray, parameters: ILSQRParameters) -> np.ndarray:
    """Weighted, early-stopped least squares, zero outside the mask."""
    bend = np.abs(divergence(gradient(domain.field, domain.grid), domain.grid))
    root = np.sqrt(1 - _stretched(bend, parameters.trusted, 100.0, domain.mask)) * domain.mask
    return (
        lsmr(
            lambda x: root * fourier.filtered(x, dipole),
            lambda y: fourier.filtered(root * y, dipole),
            root * domain.field,
            tolerance=parameters.tolerance,
            iterations=parameters.iterations,
        ).x
        * domain.mask
    )


def quick_estimate(domain: Domain, dipole: np.ndarray) -> np.ndarray:
    """FastQSM, ppm, zero outside the mask."""
    shape = domain.grid.shape
    spectrum = fourier.forward(domain.field)
    limited = np.copysign(np.maximum(np.abs(dipole), np.float32(QUICK_THRESHOLD)), dipole)
    limited[0, 0, 0] = np.inf
    reference = fourier.inverse(spectrum / limited, shape)
    fourier.scale(spectrum, np.sign(dipole))
    weights = np.abs(dipole) ** np.float32(0.001)
    low, high = np.percentile(weights, (1, 30))
    weights = np.clip((weights - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    sphere = kernels.spherical_mean(domain.grid, QUICK_RADIUS)
    for _ in range(2):
        smooth = fourier.filtered(fourier.inverse(spectrum.copy(), shape) * domain.mask, sphere)
        fourier.scale(spectrum, weights)
        smooth_spectrum = fourier.forward(smooth)
        fourier.scale(smooth_spectrum, 1 - weights)
        spectrum += smooth_spectrum
    quick = fourier.inverse(spectrum, shape)
    x, y = quick[domain.mask].astype(np.float64), reference[domain.mask].astype(np.float64)
    spread = np.var(x)
    slope = np.mean((x - x.mean()) * (y - y.mean())) / spread if spread > 0 else 1.0
    return np.where(domain.mask, slope * (quick - x.mean()) + y.mean(), 0).astype(np.float32)


def streak_operator(weights: np.ndarray, cone: np.ndarray, grid: Grid) -> tuple[Operator, Operator]:
    """Weighted gradient of the part of a map inside the ``cone`` (half spectrum, 0 or 1), and its adjoint."""

    def forward(x: np.ndarray) -> np.ndarray:
        slopes = gradient(fourier.filtered(x, cone), grid)
        slopes *= weights
        return slopes

    def adjoint(y: np.ndarray) -> np.ndarray:
        return fourier.filtered(divergence(weights * y, grid), cone)

    return forward, adjoint


def _streaks(chi: np.ndarray, weights: np.ndarray, cone: np.ndarray, grid: Grid, iterations: int) -> np.ndarray:
    """The part of ``chi`` inside the cone that smooths it where ``weights`` are high."""
    keep = cone.astype(np.float32)
    keep[0, 0, 0] = 0
    right = gradient(chi, grid)
    right *= weights
    found = lsmr(*streak_operator(weights, keep, grid), right, tolerance=1e-3, iterations=iterations)
    return fourier.filtered(found.x, keep)


def _stretched(values: np.ndarray, low: float, high: float, mask: np.ndarray) -> np.ndarray:
    """``values`` on a line from 0 at the ``low`` to 1 at the ``high`` percentile in the mask, cut there."""
    a, b = np.percentile(values[mask], (low, high))
    if b <= a:
        return np.zeros(values.shape, dtype=np.float32)
    return np.clip((values - a) / (b - a), 0, 1).astype(np.float32)
