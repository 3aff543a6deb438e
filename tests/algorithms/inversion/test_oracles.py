"""Inversions against an unhurried solution of their equation on a few hundred voxels (:mod:`tests.algorithms.dense`).

Voxels of 10 mm, so that a padding of 20 mm is two of them. Iterations are many, so the minimum is what is compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse.linalg

from qsmxt.algorithms import kernels
from qsmxt.algorithms.inversion.hdqsm import hdqsm
from qsmxt.algorithms.inversion.l1qsm import l1qsm
from qsmxt.algorithms.inversion.medi import medi
from qsmxt.algorithms.inversion.ndi import ndi
from qsmxt.algorithms.inversion.nltgv import nltgv
from qsmxt.algorithms.inversion.nltv import nltv
from qsmxt.algorithms.inversion.rts import rts
from qsmxt.algorithms.inversion.star import star
from qsmxt.algorithms.inversion.tfi import tfi
from qsmxt.algorithms.inversion.tgv import tgv
from qsmxt.algorithms.inversion.tgv_phase import tgv_phase
from qsmxt.algorithms.inversion.tikhonov import tikhonov
from qsmxt.algorithms.inversion.tkd import tkd
from qsmxt.algorithms.inversion.tsvd import tsvd
from qsmxt.algorithms.inversion.tv import tv
from qsmxt.algorithms.inversion.whqsm import whqsm
from qsmxt.constants import rad_per_ppm
from qsmxt.geometry import Grid
from tests.algorithms import dense
from tests.algorithms.dense import Box, Term

PADDING = 20.0
#: Weight of the priors, ppm mm: large voxels need a larger one than real ones.
WEIGHT = 2e-3
MANY = 3000
#: Smoothing of absolute values by which the minimum is approached, ppm/mm and ppm.
FADING = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]


@dataclass
class Tiny:
    """A few voxels of known susceptibility, field and noise (ppm)."""

    grid: Grid
    mask: np.ndarray
    field: np.ndarray
    noise: np.ndarray
    box: Box

    @property
    def f(self) -> np.ndarray:
        return self.box.extract(self.field)

    @property
    def weights(self) -> np.ndarray:
        """Inverse noise, median 1, at most 3."""
        w = np.where(self.mask, 1 / self.noise, 0)
        return self.box.extract(np.minimum(w / np.median(w[self.mask]), 3))


def make(shape=(4, 5, 4), voxel=(10.0, 10.0, 10.0), b0=(0.0, 0.0, 1.0), padding=PADDING) -> Tiny:
    grid = Grid(shape, voxel, b0)
    rng = np.random.default_rng(3)
    mask = np.ones(shape, dtype=bool)
    mask[0, 0, 0] = mask[-1, -1, 0] = False
    box = Box.around(mask, grid, padding)
    chi = np.zeros(shape)
    chi[1:3, 1:3, 1:3], chi[2:, 3, 1:] = 0.2, -0.1
    field = dense.dipole(box.grid) @ box.extract(chi)
    field = box.restore(field) + 0.002 * rng.standard_normal(shape) * mask
    return Tiny(grid, mask, field.astype(np.float32), rng.uniform(0.5, 2.5, shape).astype(np.float32), box)


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return make()


@pytest.fixture(scope="module")
def straight() -> Tiny:
    """Voxels with which the dipole is nowhere exactly zero, so that its sign is certain."""
    return make((4, 5, 4), (9.0, 10.0, 11.5))


@pytest.fixture(scope="module")
def oblique() -> Tiny:
    return make((5, 4, 4), (9.0, 11.0, 10.0), (0.3, -0.4, 0.866))


def same(found: np.ndarray, box: Box, expected: np.ndarray, limit: float, where: np.ndarray | None = None) -> None:
    """The map in the mask is ``expected`` on the box, up to ``limit`` of its norm; without its mean ``where`` given."""
    wanted = box.restore(expected)
    if where is not None:
        found, wanted = found[where] - found[where].mean(), wanted[where] - wanted[where].mean()
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    print(f"error {error:.2e}, norm {np.linalg.norm(wanted):.3g}")
    assert error < limit


def cheapest(found: np.ndarray, box: Box, terms: list[Term], expected: np.ndarray, limit: float) -> None:
    """No other map costs less by more than ``limit``; for minima so flat that maps of nearly the same cost differ.

    Unknowns that the method does not return take the values that cost least.
    """
    known = np.zeros(len(expected), dtype=bool)
    known[: box.mask.size] = box.mask
    least = dense.cost(terms, expected)
    cost = dense.least_cost(terms, known, box.extract(found)[box.mask], FADING)
    print(
        f"cost {cost / least:.5f} of the least, which is {least / dense.cost(terms, 0 * expected):.3g} of that of zero"
    )
    assert cost < (1 + limit) * least


@pytest.mark.parametrize("which", ["straight", "oblique"])
def test_tkd_replaces_small_eigenvalues_of_the_dipole_matrix(which, request):
    case = request.getfixturevalue(which)
    values, vectors = np.linalg.eigh(dense.dipole(case.box.grid))
    limited = np.where(values < 0, -1, 1) * np.maximum(np.abs(values), 0.2)
    inverse = 1 / limited
    constant = np.ones(len(values)) / np.sqrt(len(values))
    x = vectors @ (inverse * (vectors.T @ (case.f - constant * (constant @ case.f))))
    found = tkd(case.field, case.mask, case.grid, tkd.method.configure({"threshold": 0.2, "correct": False}))
    same(found, case.box, x, 1e-5)
    corrected = tkd(case.field, case.mask, case.grid, tkd.method.configure({"threshold": 0.2, "correct": True}))
    same(corrected, case.box, x / np.mean(values / limited), 1e-5)


@pytest.mark.parametrize("which", ["straight", "oblique"])
def test_tsvd_is_the_truncated_pseudoinverse(which, request):
    case = request.getfixturevalue(which)
    left, values, right = np.linalg.svd(dense.dipole(case.box.grid))
    keep = values >= 0.2
    x = right[keep].T @ ((left[:, keep].T @ case.f) / values[keep])
    same(tsvd(case.field, case.mask, case.grid, tsvd.method.configure({"threshold": 0.2})), case.box, x, 1e-5)


@pytest.mark.parametrize("penalised", ["identity", "gradient"])
def test_tikhonov_solves_the_normal_equations(penalised, oblique):
    box = oblique.box
    d, g = dense.dipole(box.grid), dense.gradient(box.grid)
    penalty = g.T @ g if penalised == "gradient" else np.eye(len(d))
    constant = np.full((len(d),) * 2, 1.0 / len(d))  # the constant, of which the field tells nothing, is left out
    x = np.linalg.solve(d.T @ d + 0.03 * penalty + constant, d.T @ oblique.f)
    settings = tikhonov.method.configure({"weight": 0.03, "penalised": penalised})
    same(tikhonov(oblique.field, oblique.mask, oblique.grid, settings), box, x, 1e-5)


def _prior(box: Box, weight: float = WEIGHT) -> Term:
    g = dense.gradient(box.grid)
    return Term("absolute", g, np.full(len(g), weight))


@pytest.mark.parametrize("weighted", [False, True])
def test_tv_is_at_the_minimum(weighted, tiny):
    w = tiny.weights**2 if weighted else np.ones(len(tiny.f))
    expected = dense.minimum([Term("squared", dense.dipole(tiny.box.grid), w, tiny.f), _prior(tiny.box)], FADING)
    settings = tv.method.configure({"weight": WEIGHT, "iterations": MANY, "tolerance": 0})
    noise = {"field_noise": tiny.noise} if weighted else {}
    same(tv(tiny.field, tiny.mask, tiny.grid, settings, **noise), tiny.box, expected, 2e-3)


#: Phase of the strongest field, rad: below a quarter turn the comparison of phases has one minimum.
STRONGEST = 0.8


def _phases(f: np.ndarray) -> tuple[float, np.ndarray, dict]:
    """Phase per field, the data in rad, and the parameters that make it so at 3 T."""
    scale = STRONGEST / np.abs(f).max()
    return scale, scale * f, {"reference_echo_time": scale / rad_per_ppm(3.0, 1.0)}


def test_nltv_is_at_the_minimum(tiny):
    scale, phase, echo = _phases(tiny.f)
    d = scale * dense.dipole(tiny.box.grid)
    terms = [Term("phase", d, tiny.weights**2, phase), _prior(tiny.box, scale**2 * WEIGHT)]
    settings = nltv.method.configure({"weight": WEIGHT, "iterations": MANY, "tolerance": 0} | echo)
    found = nltv(tiny.field, tiny.mask, tiny.grid, settings, field_noise=tiny.noise, field_strength=3.0)
    same(found, tiny.box, dense.minimum(terms, FADING), 2e-3)


def test_l1qsm_is_at_the_minimum(tiny):
    field = tiny.field.copy()
    field[1, 2, 2] += 0.1
    f = tiny.box.extract(field)
    scale, phase, echo = _phases(f)
    d = scale * dense.dipole(tiny.box.grid)
    terms = [
        Term("absolute phase", d, tiny.weights * 0.02 / scale, phase),
        _prior(tiny.box, WEIGHT),
    ]
    settings = l1qsm.method.configure({"weight": WEIGHT, "knee": 0.02, "iterations": 2 * MANY, "tolerance": 0} | echo)
    found = l1qsm(field, tiny.mask, tiny.grid, settings, field_noise=tiny.noise, field_strength=3.0)
    expected = dense.minimum(terms, FADING)
    same(found, tiny.box, expected, 5e-2)
    cheapest(found, tiny.box, terms, expected, 1e-2)


def test_hdqsm_is_at_the_minimum_of_both_stages(tiny):
    field = tiny.field.copy()
    field[1, 2, 2] += 0.1
    f, d, w = tiny.box.extract(field), dense.dipole(tiny.box.grid), tiny.weights
    first = dense.minimum([Term("absolute", d, 0.02 * w, f), _prior(tiny.box)], FADING)
    squared = w**2 / (1 + (w * (d @ first - f) / 0.03) ** 2)
    expected = dense.minimum([Term("squared", d, squared, f), _prior(tiny.box)], FADING)
    settings = {"weight": WEIGHT, "knee": 0.02, "first_iterations": MANY, "iterations": MANY, "tolerance": 0}
    found = hdqsm(field, tiny.mask, tiny.grid, hdqsm.method.configure(settings), field_noise=tiny.noise)
    same(found, tiny.box, expected, 5e-3)


def test_star_is_at_the_minimum_of_both_levels(tiny):
    d, w, f = dense.dipole(tiny.box.grid), tiny.weights**2, tiny.f
    first = dense.minimum([Term("squared", d, w, f), _prior(tiny.box, 3e-3)], FADING)
    middle = np.median(first[tiny.box.mask])
    strong = np.where(tiny.box.mask & (np.abs(first - middle) > 0.1), first, 0)
    assert 2 < np.count_nonzero(strong) < 40
    rest = np.where(tiny.box.mask, f - d @ strong, 0)
    second = dense.minimum([Term("squared", d, w, rest), _prior(tiny.box, WEIGHT)], FADING)
    settings = {"weight": WEIGHT, "strong_weight": 3e-3, "strong": 0.1, "iterations": MANY, "tolerance": 0}
    found = star(tiny.field, tiny.mask, tiny.grid, star.method.configure(settings), field_noise=tiny.noise)
    same(found, tiny.box, strong + second, 3e-3)


def test_whqsm_finds_map_and_harmonic_remnant_of_least_cost(tiny):
    scale, phase, echo = _phases(tiny.f)
    size = len(phase)
    d, g = scale * dense.dipole(tiny.box.grid), dense.gradient(tiny.box.grid)
    beta = 3e3
    terms = [
        Term("phase", np.hstack([d, scale * np.eye(size)]), tiny.weights**2, phase),
        Term("absolute", np.hstack([g, np.zeros_like(g)]), np.full(len(g), scale**2 * WEIGHT)),
        Term("squared", np.hstack([np.zeros((size, size)), g.T @ g]), scale**2 * beta * tiny.box.mask),
    ]
    expected = dense.minimum(terms, FADING[:-2])[:size]
    settings = {"weight": WEIGHT, "harmonic_weight": beta, "harmonic_penalty": beta / 50}
    settings |= {"iterations": 2 * MANY, "tolerance": 0} | echo
    found = whqsm(
        tiny.field, tiny.mask, tiny.grid, whqsm.method.configure(settings), field_noise=tiny.noise, field_strength=3.0
    )
    same(found, tiny.box, expected, 3e-2)


def _second_order(case: Tiny, data: Term, weight: float, curvature: float, where: np.ndarray | None = None):
    """Terms of total generalised variation in the unknowns (map, w)."""
    g, e = dense.gradient(case.box.grid), dense.symmetric_gradient(case.box.grid)
    size = g.shape[1]
    t = np.ones(size) if where is None else where
    double = np.repeat([1.0, 1, 1, 2, 2, 2], size)
    return [
        Term(data.kind, np.hstack([data.matrix, np.zeros((len(data.matrix), 3 * size))]), data.weights, data.data),
        Term("absolute", np.hstack([g, -np.eye(3 * size)]), weight * np.tile(t, 3)),
        Term("absolute", np.hstack([np.zeros((6 * size, size)), e]), weight * curvature * double * np.tile(t, 6)),
    ]


@pytest.fixture(scope="module")
def smallest() -> Tiny:
    """For priors with three more unknowns in every voxel."""
    return make((3, 4, 3), (10.0, 10.0, 10.0))


def test_nltgv_is_at_the_minimum(smallest):
    scale, phase, echo = _phases(smallest.f)
    data = Term("phase", scale * dense.dipole(smallest.box.grid), smallest.weights**2, phase)
    terms = _second_order(smallest, data, scale**2 * WEIGHT, 5.0)
    expected = dense.minimum(terms, FADING[:-1], 15)
    settings = nltgv.method.configure({"weight": WEIGHT, "curvature": 5.0, "iterations": MANY, "tolerance": 0} | echo)
    found = nltgv(
        smallest.field, smallest.mask, smallest.grid, settings, field_noise=smallest.noise, field_strength=3.0
    )
    same(found, smallest.box, expected[: len(phase)], 5e-2)


@pytest.fixture(scope="module")
def total() -> Tiny:
    """With a background; the mask fills the box but for two corners, so that sources outside explain little."""
    case = make((6, 6, 5), padding=0)
    x, y, z = np.indices(case.grid.shape) * 1.0
    case.field = np.where(case.mask, case.field + 0.05 * x - 0.03 * y * z + 0.02 * (x * x - z * z), 0)
    return case


def _without_harmonic(case: Tiny) -> np.ndarray:
    return case.box.extract(case.field - dense.continuation(case.field, case.mask, case.grid.voxel_size))


def test_tgv_is_at_the_minimum(total):
    f = _without_harmonic(total)
    inside = total.box.extract(dense.interior(total.mask))
    d = dense.of_half(kernels.dipole(total.box.grid, "greens"), total.box.grid.shape)
    data = Term("squared", d, total.weights**2 * inside, f)
    terms = _second_order(total, data, WEIGHT / 2, 5.0, total.box.mask.astype(float))
    expected = dense.minimum(terms, FADING[:-1])
    settings = {"weight": WEIGHT / 2, "curvature": 5.0, "margin": 0, "iterations": MANY, "tolerance": 0}
    found = tgv(total.field, total.mask, total.grid, tgv.method.configure(settings), field_noise=total.noise)
    same(found, total.box, expected[: len(f)], 8e-2, total.mask)


def test_tgv_of_wrapped_phase_is_that_of_its_field(total):
    """The mean Laplacian, which is subtracted, is zero for this field."""
    x, y, z = (np.indices(total.grid.shape) * 1.0) - 2
    inner = dense.interior(total.mask)

    def laplacian(volume):
        return sum(np.roll(volume, s, a) for a in range(3) for s in (1, -1)) - 6 * volume

    square = x * x + y * y + z * z
    field = total.field - square * laplacian(total.field)[inner].mean() / laplacian(square)[inner].mean()
    times = np.array([0.004, 0.011])
    phase = np.angle(np.exp(1j * np.stack([rad_per_ppm(3.0, t) * field + 0.7 for t in times])))
    settings = {"weight": WEIGHT, "margin": 0, "iterations": 200, "tolerance": 0}
    expected = tgv(field, total.mask, total.grid, tgv.method.configure(settings))
    settings = tgv_phase.method.configure(settings | {"erosions": 0})
    found = tgv_phase(phase.astype(np.float32), total.mask, times, 3.0, total.grid, settings)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def _edges(magnitude: np.ndarray, box: Box, share: float) -> np.ndarray:
    """0 on the strongest differences of the magnitude in the mask, 1 elsewhere."""
    slopes = np.abs(dense.gradient(box.grid) @ box.extract(magnitude))
    limit = np.quantile(slopes[np.tile(box.mask, 3)], 1 - share)
    return np.where(slopes > limit, 0.0, 1.0)


#: Smoothing of the absolute value in the Gauss-Newton solver, ppm/mm.
SMOOTH = [1e-3]
STEPS = {"iterations": 30, "tolerance": 0, "inner_iterations": 20}


def test_medi_is_at_the_minimum(tiny):
    magnitude = np.random.default_rng(5).uniform(1, 2, tiny.grid.shape).astype(np.float32)
    scale, phase, echo = _phases(tiny.f)
    d, g = dense.dipole(tiny.box.grid), dense.gradient(tiny.box.grid)
    edges = _edges(magnitude, tiny.box, 0.3)
    terms = [
        Term("phase", scale * d, tiny.weights**2, phase),
        Term("absolute", edges[:, None] * g, np.full(len(g), scale**2 * WEIGHT)),
    ]
    expected = dense.minimum(terms, SMOOTH, 400)
    settings = medi.method.configure({"weight": WEIGHT} | STEPS | echo)
    noise = {"field_noise": tiny.noise, "magnitude": magnitude, "field_strength": 3.0}
    found = medi(tiny.field, tiny.mask, tiny.grid, settings, **noise)
    same(found, tiny.box, expected, 1e-3)


def test_medi_with_spherical_means_filters_both_sides(tiny):
    """Field and dipole less their means over spheres, where the sphere fits into the mask."""
    radius = 10.5
    high = np.eye(len(tiny.f)) - dense.spherical_mean(tiny.box.grid, radius)
    part = dense.spherical_mean(tiny.box.grid, radius) @ tiny.box.mask
    reliable = (part > 1 - 1e-6) & tiny.box.mask
    assert 0 < reliable.sum() < tiny.box.mask.sum()
    scale, _, echo = _phases(tiny.f)
    d, g = dense.dipole(tiny.box.grid), dense.gradient(tiny.box.grid)
    terms = [
        Term("phase", scale * high @ d, reliable * 1.0, scale * (high @ tiny.f)),
        Term("absolute", g, np.full(len(g), scale**2 * WEIGHT / 10)),
    ]
    expected = np.where(reliable, dense.minimum(terms, SMOOTH, 400), 0)
    settings = medi.method.configure({"weight": WEIGHT / 10, "smv_radius": radius} | STEPS | echo)
    found = medi(tiny.field, tiny.mask, tiny.grid, settings, field_strength=3.0)
    same(found, tiny.box, expected, 3e-3)


def test_tfi_is_at_the_minimum(total):
    f = _without_harmonic(total)
    scale, phase, echo = _phases(f)
    inside = total.box.extract(dense.interior(total.mask))
    d = dense.of_half(kernels.dipole(total.box.grid, "greens"), total.box.grid.shape)
    g = dense.gradient(total.box.grid)
    terms = [
        Term("phase", scale * d, total.weights**2 * inside, phase),
        Term("absolute", np.tile(total.box.mask, 3)[:, None] * g, np.full(len(g), scale**2 * WEIGHT)),
    ]
    expected = dense.minimum(terms, SMOOTH, 400)
    settings = tfi.method.configure({"weight": WEIGHT, "margin": 0, "outside": 1} | STEPS | echo)
    found = tfi(total.field, total.mask, total.grid, settings, field_noise=total.noise, field_strength=3.0)
    same(found, total.box, expected, 1e-2, total.mask)


def test_more_steps_do_not_make_a_constant_of_rounding(tiny):
    """No data tell the constant of a map, so a preconditioner must not amplify it."""
    settings = {"weight": WEIGHT, "iterations": 40, "tolerance": 0, "inner_iterations": 60, "inner_tolerance": 1e-4}
    found = medi(tiny.field, tiny.mask, tiny.grid, medi.method.configure(settings))
    settings |= {"iterations": 20, "inner_iterations": 20}
    fewer = medi(tiny.field, tiny.mask, tiny.grid, medi.method.configure(settings))
    assert abs(found.mean() - fewer.mean()) < 1e-4 * found.std()


def test_rts_is_lsmr_and_the_minimum_of_total_variation(tiny):
    d, g = dense.dipole(tiny.box.grid), dense.gradient(tiny.box.grid)
    first = scipy.sparse.linalg.lsmr(d, tiny.f, atol=0, btol=0, conlim=0, maxiter=5)[0] * tiny.box.mask
    values, vectors = np.linalg.eigh(d)
    project = vectors[:, np.abs(values) > 0.15].T  # the well-conditioned part of k-space
    fidelity = 1e3
    terms = [
        Term("squared", project, np.full(len(project), fidelity), project @ first),
        Term("absolute", g, np.ones(len(g))),
    ]
    settings = {"first_iterations": 5, "fidelity": fidelity, "iterations": MANY, "tolerance": 0}
    found = rts(tiny.field, tiny.mask, tiny.grid, rts.method.configure(settings))
    same(found, tiny.box, dense.minimum(terms, FADING), 3e-3)


def test_ndi_is_the_plain_descent(tiny):
    scale = 3 / np.abs(tiny.f).max()  # what a reference echo time of auto takes
    phase = scale * tiny.f
    d = dense.dipole(tiny.box.grid)
    w = np.minimum(tiny.weights, 1) ** 2
    x, ahead, momentum = np.zeros_like(phase), np.zeros_like(phase), 1.0
    for _ in range(25):
        new = ahead - 2 * (d @ (w * np.sin(d @ ahead - phase)) + 1e-5 * ahead)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead, x, momentum = new + (momentum - 1) / following * (new - x), new, following
    found = ndi(tiny.field, tiny.mask, tiny.grid, field_noise=tiny.noise)
    same(found, tiny.box, x / scale, 1e-4)
