r"""Total-field inversion with total variation inside the mask and free sources outside (TV-TFI).

.. math:: \min_x \tfrac12 \|W(f - d * x)\|_2^2 + \lambda \|T \nabla x\|_1

:math:`f` is the total field (ppm, ``(x, y, z)``), :math:`d` the unit dipole, :math:`x` the susceptibility (ppm) of the
whole box: inside the mask it is :math:`\chi`, outside it stands for whatever makes the background field. :math:`T` is 1
in the mask and 0 outside, so that background sources cost nothing, :math:`W` is 0 outside the mask.

Why. A background method has to decide which part of the field comes from outside before it knows anything about the
inside, and every harmonic part of the local field is lost with it. Here both are found together, and the prior on
:math:`\chi` decides. The total-field inversion of Liu 2017 does the same with a preconditioner; here

1. the Laplacian boundary value solution (:mod:`qsmxt.algorithms.background.lbv`) and solid harmonics of low degree are
   subtracted first. They are harmonic, so they only move sources outside the mask, where those are free, and take away
   the many times larger part of the field on which iterations would be spent;
2. what remains is solved by the alternating direction method of multipliers with the splits :math:`z_1 = \nabla x` and
   :math:`z_2 = d * x`, all steps of which are diagonal.

The iterations are stopped early (``iterations``; before, if the map changes by less than ``tolerance``), which damps
what the data hardly determine. The weights are the inverse of ``field_noise``, scaled to a median of 1 and cut at 3,
times the third power of ``fit_quality``. The outermost voxels, whose field the boundary values use up, have no weight;
they are part of the map all the same.

Parameters
    ``weight``: :math:`\lambda`. ``criterion``: how one of ``auto`` is found
    (:mod:`~qsmxt.algorithms.inversion.regularisation`), from the local field that the default weight gives. ``margin``:
    width of the shell in which background sources may lie. ``gradient_penalty``: penalty of :math:`z_1` over
    :math:`\lambda`. ``field_penalty``: penalty of :math:`z_2` over the median data weight. ``edge``: gradient of the
    map above which the total variation flattens no further.

References
----------
Liu et al. 2017 (doi:10.1002/mrm.26331); Zhou et al. 2014 (doi:10.1002/nbm.3064); Bilgic et al. 2014
(doi:10.1002/mrm.25029).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier, kernels, parallel
from qsmxt.algorithms.background.lbv import LBVParameters, lbv
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.domain import WEIGHT_CAP, Domain, checked_mask, masked
from qsmxt.algorithms.engine import HOST, Engine, engine_of, to_host
from qsmxt.algorithms.inversion.regularisation import CRITERIA, chosen, of_total_variation
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: The start: boundary values, then solid harmonics up to degree 4. At 1.5 mm the NRMSE five voxels inside a digital
#: head fell from 35.6 without harmonics to 33.2 % with degree 4; more changed nothing.
START = LBVParameters(tolerance=1e-4, harmonic_degree=4, harmonic_depth=0.0)

#: Power of ``fit_quality`` in the data weights. When all echoes still counted in full, NRMSE five voxels inside digital
#: heads (3 T; 7 T; 1 x 1 x 3 mm; 7 T at 1 mm) with power 0: 41.3, 34.8, 58.4, 30.3 %; 2: 31.6, 34.8, 47.5, 29.4; 3:
#: 31.6, 36.5, 43.6, 29.6; 4: 31.8, 39.4, 42.2, 30.1; 8: 33.7, 48.6, 43.3, 34.7. Too much of it forgets the field around
#: strong sources.
QUALITY_POWER = 3

#: Over-relaxation of both splits. NRMSE five voxels inside digital heads (3 T; the same 25 degrees oblique; 7 T, 1 mm)
#: after 30 iterations with 1: 31.4, 34.9, 29.4 %; after 22 with 1.7: 29.1, 32.9, 28.7 % (gradient penalty 40, and
#: echoes that lose their coherence not yet counting less in the field; with that: 27.8, 35.8, 27.5 %, and with penalty
#: 80: 28.3, 31.4, 28.0 %).
RELAXATION = 1.7

#: Padding of the box, mm, for the obliquity of B0. Sources beyond half the box act on the other side of their periodic
#: copy, where the mixed terms of an oblique dipole have the other sign. Core error, XSIM and deep-grey slope without it
#: and with it (31, 21 and 14 mm): 25 degrees: 32.2 and 30.1 %, 0.738 and 0.770, 0.859 and 0.902; 15 degrees, held out:
#: 19.0 and 18.7 %, 0.678 and 0.737, 0.932 and 0.920; 10 degrees, held out: 35.3 and 35.6 %, 0.660 and 0.696, 1.010 and
#: 1.018. Where B0 lies along an axis, 40 instead of 8 mm would make 27.5 % into 28.8 % and 0.702 into 0.691.
OBLIQUE_GAP = 80.0


@dataclass(frozen=True)
class TVTFIParameters:
    """Parameters of :func:`tvtfi`."""

    weight: float = parameter(
        2e-4, unit="ppm mm", above=0, auto=True, help="weight of the total variation in the mask; larger is smoother"
    )
    criterion: str = parameter("equalisation", choices=CRITERIA, help="how a weight of auto is found")
    iterations: int = parameter(
        22, at_least=1, help="iterations; fewer damp what the data hardly determine, more sharpen and add streaks"
    )
    tolerance: float = parameter(
        0.0, at_least=0, help="relative change of the sources at which iteration stops; 0: after all iterations"
    )
    margin: float = parameter(
        8.0, unit="mm", at_least=0, help="width of the shell around the mask in which background sources may lie"
    )
    gradient_penalty: float = parameter(
        80.0, unit="1/(ppm mm)", above=0, help="ADMM penalty of the gradient as a multiple of the weight"
    )
    edge: float = parameter(
        0.75,
        unit="ppm/mm",
        above=0,
        help="slope of the map from which the total variation lowers it no further; larger is smoother",
    )
    field_penalty: float = parameter(
        0.025, above=0, help="ADMM penalty of the field relative to the median data weight"
    )


@method(
    stage="inversion",
    key="tvtfi",
    title="Total-field inversion with total variation (TV-TFI)",
    consumes=("total_field", "mask"),
    optional=("field_noise", "fit_quality"),
    produces=("chi", "local_field"),
    parameters=TVTFIParameters,
    references=("liu2017tfi", "zhou2014", "bilgic2014tv"),
    sentence=(
        "Susceptibility was computed directly from the total field by total-field inversion with total variation "
        "inside the mask (weight {weight}, {iterations} iterations) and unregularised background sources outside."
    ),
    cost=Cost(bytes_per_voxel=59, seconds_per_megavoxel=1.0),
    on_device=True,
)
def tvtfi(
    total_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: TVTFIParameters = TVTFIParameters(),
    *,
    progress: Progress | None = None,
    field_noise: np.ndarray | None = None,
    fit_quality: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Susceptibility and local field (both ppm, zero outside the mask) from the total field (ppm); see the module.

    Parameters
    ----------
    total_field
        Relative field of all sources, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Region in which susceptibility is sought, bool ``(x, y, z)``.
    grid
        Shape, voxel size (mm) and direction of B0.
    parameters
        See :class:`TVTFIParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.
    field_noise
        Standard deviation of the field, ppm, float32 ``(x, y, z)``; voxels of zero have no weight. Without it all
        voxels weigh the same.
    fit_quality
        Agreement of the echoes, from 0 to 1, float32 ``(x, y, z)``. Without it all voxels are trusted.

    Returns
    -------
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.
    local_field
        Field of the sources in the mask, ppm, float32 ``(x, y, z)``; zero outside the mask and in its outermost layer,
        whose field the boundary values use up.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, or the total field is complex or has
        NaN or Inf in the mask; if no voxel of the mask has six neighbours in it; if the criterion ``discrepancy`` is
        chosen without ``field_noise``.

    Examples
    --------
    >>> from qsmxt.algorithms.inversion.tvtfi import tvtfi
    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi, local = tvtfi(head.total_field, head.mask, head.grid)
    >>> nrmse(chi, head.chi, head.mask) < 12  # percent of the true susceptibility
    True
    """
    engine = engine_of(total_field)
    mask = checked_mask(to_host(mask), grid)
    field_noise, fit_quality = to_host(field_noise), to_host(fit_quality)
    weight = weight_for_total_field(
        parameters.weight, parameters.criterion, to_host(total_field), mask, grid, field_noise, fit_quality
    )
    parameters = replace(parameters, weight=weight)
    residual, interior = lbv(to_host(total_field), mask, grid, START)
    crop = Crop.around(mask, grid, margin=parameters.margin, padding=parameters.margin + _oblique_gap(grid))
    inside = crop.extract(mask)
    field = crop.extract(residual)
    weights = _data_weights(crop, mask, interior, field_noise, fit_quality)
    solve = _solve if engine is HOST else functools.partial(_solve_elsewhere, engine)
    limit = parameters.edge * parameters.gradient_penalty
    shrinkage = engine.shrinkage(crop.grid, inside.astype(np.float32), RELAXATION, limit)
    dipole = engine.send(kernels.dipole(crop.grid, "greens"))
    x = solve(field, weights, dipole, shrinkage, crop.grid, parameters, progress)
    chi = np.where(inside, engine.fetch(x), np.float32(0))
    x[engine.send(inside)] = 0
    outer = engine.fetch(engine.filtered(x, dipole))
    local = np.where(inside, field - outer, np.float32(0))
    return engine.send(crop.restore(chi)), engine.send(crop.restore(local))


def weight_for_total_field(
    weight: float | str,
    criterion: str,
    total_field: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    field_noise: np.ndarray | None,
    fit_quality: np.ndarray | None = None,
    factor: Callable[[np.ndarray], float] | None = None,
) -> float:
    """``weight``, or that of total variation (ppm mm) for the local field that this method finds at its defaults.

    The weight has the same unit in all methods that find background and susceptibility together, and their own maps
    have no ratio of amplitudes that would tell it: what the background left in the map has one of its own. On digital
    heads at 3 T (B0 along the axis and at 25 degrees) with 0.9 and 3 ppb of noise the local field is 32 to 57 % off,
    and yet ``discrepancy`` finds 0.7e-4 and 5e-4 and ``equalisation`` 0.7 to 1.3e-4; from the true local field they
    find 1e-4 and 5.3e-4, and 1.4 to 1.7e-4. ``factor`` tells from the map of this method by how much the prior of
    another needs a larger weight.
    """
    if weight != "auto":
        return float(weight)
    chi, local = tvtfi(total_field, mask, grid, field_noise=field_noise, fit_quality=fit_quality)
    scale = 1.0 if factor is None else factor(chi)
    domain = Domain.around("total_field", local, mask, grid)
    return float(chosen(weight, criterion, of_total_variation(domain, value_of=lambda w: scale * w), field_noise))


def _oblique_gap(grid: Grid) -> float:
    """Padding (mm) for the obliquity of B0: :data:`OBLIQUE_GAP` times the largest product of two of its components."""
    x, y, z = (abs(b) for b in grid.b0_direction)
    return OBLIQUE_GAP * max(x * y, x * z, y * z)


def _data_weights(
    crop: Crop,
    mask: np.ndarray,
    interior: np.ndarray,
    field_noise: np.ndarray | None,
    fit_quality: np.ndarray | None,
) -> np.ndarray:
    """Squared data weights on the box."""
    inside = crop.extract(interior)
    if field_noise is None:
        weights = inside.astype(np.float32)
    else:
        noise = masked("field_noise", field_noise, mask, crop)
        good = inside & (noise > 0)
        weights = np.divide(1, noise, out=np.zeros_like(noise), where=good)
        if good.any():
            weights /= np.median(weights[good])
        np.minimum(weights, np.float32(WEIGHT_CAP), out=weights)
    if fit_quality is not None:
        weights *= masked("fit_quality", fit_quality, mask, crop) ** QUALITY_POWER
    weights *= weights
    return weights


def _solve(
    field: np.ndarray,
    weights: np.ndarray,
    dipole: np.ndarray,
    shrinkage: Any,
    grid: Grid,
    parameters: TVTFIParameters,
    progress: Progress | None,
) -> np.ndarray:
    """Susceptibility of the whole box.

    The two volumes that are transformed in every step, and the two that come back, travel as real and imaginary part of
    one complex transform. Its pieces are transformed where they are at work, while they are in the cache.
    """
    nx, ny = grid.shape[:2]
    mu, alpha = np.float32(parameters.field_penalty), np.float32(RELAXATION)
    from_gradient, from_field = _transfers(dipole, grid, parameters)
    filled = weights.any(axis=2)
    state = np.zeros(grid.shape, dtype=np.float32)
    x = np.zeros(grid.shape, dtype=np.float32) if parameters.tolerance else None
    pair = np.zeros(grid.shape, dtype=np.complex64)
    for iteration in range(parameters.iterations):
        shrink = shrinkage.planes(shrinkage.relaxed, 1 / parameters.gradient_penalty)
        parallel.run(_fit_planes, nx, shrink, field, weights, filled, mu, alpha, state, pair)
        parallel.run(_combine_rows, ny // 2 + 1, pair, dipole, from_gradient, from_field)
        if x is None and iteration + 1 == parameters.iterations:
            alpha = np.float32(1)  # leaves the map itself
        parallel.run(_return_planes, nx, pair, alpha, shrinkage.relaxed)
        if progress:
            progress((iteration + 1) / parameters.iterations)
        if x is not None and _moved(x, pair.real) < parameters.tolerance:
            break
    return shrinkage.relaxed if x is None else x


def _moved(x: np.ndarray, new: np.ndarray) -> float:
    """Let ``x`` become ``new``, and return its relative change."""
    old = x.copy()
    np.copyto(x, new)
    return float(HOST.change(x, old))


def _transfers(dipole: np.ndarray, grid: Grid, parameters: TVTFIParameters) -> tuple[np.ndarray, np.ndarray]:
    """Half spectra of what the map takes from the splits of the gradient and of the field."""
    rho, mu = np.float32(parameters.gradient_penalty * parameters.weight), np.float32(parameters.field_penalty)
    denominator = rho * kernels.negative_laplacian(grid)
    from_field = mu * dipole
    denominator += from_field * dipole
    denominator[0, 0, 0] = np.inf
    from_field /= denominator
    return np.divide(rho, denominator, out=denominator), from_field


def _solve_elsewhere(
    engine: Engine,
    field: np.ndarray,
    weights: np.ndarray,
    dipole: Any,
    shrinkage: Any,
    grid: Grid,
    parameters: TVTFIParameters,
    progress: Progress | None,
) -> Any:
    """:func:`_solve` on arrays of another library, with two real transforms instead of a complex one."""
    mu, shape = parameters.field_penalty, grid.shape
    transfers = _transfers(engine.fetch(dipole), grid, parameters)
    from_gradient, from_field = (engine.send(transfer) for transfer in transfers)
    data, total = engine.send(weights * field), engine.send(weights + np.float32(mu))
    x, right, predicted, state = (engine.zeros(shape) for _ in range(4))
    for iteration in range(parameters.iterations):
        shrinkage.step(x, 1 / parameters.gradient_penalty, right)
        state = RELAXATION * (predicted - (data + mu * state) / total) + state
        spectrum = engine.forward(2 * ((data + mu * state) / total) - state)
        engine.scale(spectrum, from_field)
        other = engine.forward(right)
        engine.scale(other, from_gradient)
        other += spectrum
        old, x = x, engine.inverse(engine.copy(other), shape)
        engine.scale(other, dipole)
        predicted = engine.inverse(other, shape)
        if progress:
            progress((iteration + 1) / parameters.iterations)
        if parameters.tolerance and engine.change(x, old) < parameters.tolerance:
            break
    return x


def _fit_planes(start, stop, shrink, field, weights, filled, mu, relaxation, state, pair):
    """The split of the gradient, :func:`_fit`, and the transform of the planes."""
    right = np.empty((stop - start, *field.shape[1:]), dtype=np.float32)
    shrink(start, stop, right)
    _fit(start, stop, field, weights, filled, mu, relaxation, right, state, pair.view(np.float32))
    fourier.transform(pair[start:stop], fourier.PLANE, True)


def _combine_rows(start, stop, pair, dipole, from_gradient, from_field):
    """Transform of rows and their opposites across the planes, :func:`_combine`, and back."""
    ny = pair.shape[1]
    opposite = pair[:, max(stop, ny - stop + 1) : min(ny, ny - start + 1)]
    rows = [pair[:, start:stop], opposite] if opposite.size else [pair[:, start:stop]]
    for piece in rows:
        fourier.transform(piece, fourier.ACROSS, True)
    _combine(start, stop, pair.view(np.float32), pair.view(np.float64), dipole, from_gradient, from_field)
    for piece in rows:
        fourier.transform(piece, fourier.ACROSS, False)


def _return_planes(start, stop, pair, relaxation, relaxed):
    """Transform of the planes back, and the over-relaxed map from its real part."""
    fourier.transform(pair[start:stop], fourier.PLANE, False)
    _relax(start, stop, pair.view(np.float32), relaxation, relaxed)


@kernel
def _relax(start, stop, pair, relaxation, relaxed):
    keep = np.float32(1) - relaxation
    for i in range(start, stop):
        for j in range(relaxed.shape[1]):
            for k in range(relaxed.shape[2]):
                relaxed[i, j, k] = relaxation * pair[i, j, 2 * k] + keep * relaxed[i, j, k]


@kernel
def _fit(start, stop, field, weights, filled, mu, relaxation, right, state, pair):
    """Weighted average of the data and the predicted field (imaginary part); ``pair`` becomes ``z2 - u2 + i right``.

    ``state`` is ``z2 + u2``, of which both follow. Rows that are not ``filled`` have no weights.
    """
    two, keep = np.float32(2), np.float32(1) - relaxation
    for i in range(start, stop):
        for j in range(field.shape[1]):
            some = filled[i, j]
            for k in range(0 if some else field.shape[2]):
                v = relaxation * pair[i, j, 2 * k + 1] + keep * state[i, j, k]
                state[i, j, k] = v
                pair[i, j, 2 * k] = v
                pair[i, j, 2 * k + 1] = right[i - start, j, k]
            for k in range(field.shape[2] if some else 0):
                w, old = weights[i, j, k], state[i, j, k]
                scale = np.float32(1) / (w + mu)
                data = w * field[i, j, k]
                v = relaxation * (pair[i, j, 2 * k + 1] - (data + mu * old) * scale) + old
                state[i, j, k] = v
                pair[i, j, 2 * k] = two * ((data + mu * v) * scale) - v
                pair[i, j, 2 * k + 1] = right[i - start, j, k]


@kernel
def _take_opposite(whole, i, j, part):
    """Upper half of a row from its end on, behind the first element of ``part``."""
    for k in range(1, part.size):
        part[k] = whole[i, j, whole.shape[2] - k]


@kernel
def _put_opposite(whole, i, j, last, part):
    for k in range(1, last):
        whole[i, j, whole.shape[2] - k] = part[k]


@kernel
def _update(pair, i, j, first, last, part, dipole, from_gradient, from_field):
    """New spectra from frequency ``first`` to ``last`` of a row and their opposites in ``part``.

    Real and imaginary parts are in turn. With the spectra P of a pair of real volumes and Q of its opposite, the first
    volume has (P + conj Q) / 2 and the second (P - conj Q) / 2i; X is what solves for the susceptibility, and X + i D X
    is left behind.
    """
    half = np.float32(0.5)
    for n in range(last - first):
        k = first + n
        p, q, r, s = pair[i, j, 2 * k], pair[i, j, 2 * k + 1], part[2 * k], part[2 * k + 1]
        g, f, d = half * from_gradient[i, j, k], half * from_field[i, j, k], dipole[i, j, k]
        real, imag = f * (p + r) + g * (q + s), f * (q - s) + g * (r - p)
        x, y = d * imag, d * real
        pair[i, j, 2 * k] = real - x
        pair[i, j, 2 * k + 1] = imag + y
        part[2 * k] = real + x
        part[2 * k + 1] = y - imag


@kernel
def _combine(start, stop, pair, whole, dipole, from_gradient, from_field):
    """Solve for the susceptibility in k-space; rows of ``pair`` become the transform of ``x + i d*x``.

    ``whole`` is the same memory with a complex number as one, which is only moved.
    """
    nx, ny, nz = whole.shape
    lower, upper = (nz + 1) // 2, nz // 2 + 1
    moved = np.empty(upper, dtype=np.float64)
    part = moved.view(np.float32)
    for i in range(nx):
        a = nx - i if i else 0
        for j in range(start, stop):
            b = ny - j if j else 0
            if b == j and a < i:
                continue
            itself = a == i and b == j
            last = upper if itself else lower
            moved[0] = whole[a, b, 0]
            _take_opposite(whole, a, b, moved)
            _update(pair, i, j, 0, last, part, dipole, from_gradient, from_field)
            whole[a, b, 0] = moved[0]
            _put_opposite(whole, a, b, last, moved)
            if not itself:
                _take_opposite(whole, i, j, moved)
                _update(pair, a, b, 1, upper, part, dipole, from_gradient, from_field)
                _put_opposite(whole, i, j, upper, moved)
