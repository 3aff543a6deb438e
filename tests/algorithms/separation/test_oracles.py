"""Separations against scipy's bounded least squares and plain searches."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from qsmxt.algorithms import kernels
from qsmxt.algorithms.separation import chiseparation, decompose, wavesep
from qsmxt.algorithms.separation.chiseparation import map_noise
from qsmxt.algorithms.separation.decompose import SPHERES
from qsmxt.algorithms.separation.hcchisep import FRACTIONS, decays, look_up
from qsmxt.constants import hz_per_ppm
from qsmxt.geometry import Grid
from tests.algorithms import dense
from tests.algorithms.inversion.test_oracles import make

STRENGTH = 3.0


@pytest.mark.parametrize("prior", ["l2", "l1"])
def test_chiseparation_is_the_bounded_least_squares_of_scipy(prior):
    """Unknowns are both sources in the mask; absolute values by repeatedly weighted squares."""
    case = make((3, 4, 3))
    box, rng = case.box, np.random.default_rng(1)
    rho = np.where(case.mask, np.abs(case.field) + 0.1 * rng.random(case.grid.shape), 0)
    weight, coupling = (2e-3, 0.05) if prior == "l1" else (0.5, 0.05)
    settings = {"prior": prior, "weight": weight, "coupling": coupling, "iterations": 4000, "tolerance": 0}
    found = chiseparation(
        case.field, 137 * rho, case.mask, STRENGTH, case.grid, chiseparation.method.configure(settings),
        r2prime=137 * rho, field_noise=case.noise,
    )  # fmt: skip
    inside = np.flatnonzero(box.mask)
    d = dense.of_half(kernels.dipole(box.grid, "greens"), box.grid.shape)[:, inside] * case.weights[:, None]
    one, g = np.eye(len(inside)), dense.gradient(box.grid)[:, inside]
    zero = np.zeros_like(g)
    x = np.zeros(2 * len(inside))
    for eps in np.repeat([1e-2, 1e-3, 1e-4, 1e-5], 8) if prior == "l1" else [1.0]:
        slopes = [g @ x[: len(inside)], g @ x[len(inside) :]]
        roots = [np.sqrt(weight / (np.sqrt(s**2 + eps**2) if prior == "l1" else 1 + 0 * s))[:, None] for s in slopes]
        matrix = np.block([[d, -d], [np.sqrt(coupling) * one] * 2, [roots[0] * g, zero], [zero, roots[1] * g]])
        right = np.concatenate(
            [case.weights * case.f, np.sqrt(coupling) * box.extract(rho)[inside], np.zeros(2 * len(g))]
        )
        x = scipy.optimize.lsq_linear(matrix, right, (0, np.inf), method="bvls").x
    for one_map, part, sign in zip(found, (x[: len(inside)], x[len(inside) :]), (1, -1), strict=True):
        wanted = np.zeros(len(box.mask))
        wanted[inside] = sign * part
        wanted = box.restore(wanted)
        assert np.linalg.norm(one_map - wanted) < 1e-2 * np.linalg.norm(x)


def _signal(p: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Three pools: C+, C-, C0, chi+, -chi-, R0."""
    w = 2 * np.pi * hz_per_ppm(7.0)
    a, turn = SPHERES * w, 2 / 3 * w
    plus = p[0] * np.exp(-(a * p[3] + 1j * turn * p[3]) * times)
    minus = p[1] * np.exp(-(a * p[4] - 1j * turn * p[4]) * times)
    return (plus + minus + p[2]) * np.exp(-p[5] * times)


def test_decompose_fits_as_well_as_scipy():
    rng = np.random.default_rng(0)
    times, grid = 0.003 * np.arange(1, 13), Grid((2, 3, 2))
    truths = rng.uniform([0.2, 0.2, 0.2, 0.05, 0.05, 8], [0.5, 0.5, 0.5, 0.15, 0.12, 18], (12, 6))
    signal = np.array([_signal(p, times) for p in truths])
    signal = signal + 0.002 * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    each = -np.unwrap(np.angle(signal), axis=1) / (4 / 3 * np.pi * hz_per_ppm(7.0) * times)
    rate = np.array([-np.polyfit(times, np.log(np.abs(s)), 1)[0] for s in signal])
    volumes = [v.T.reshape(12, *grid.shape).astype(np.float32) for v in (np.abs(signal), each)]
    settings = decompose.method.configure({"iterations": 400})
    found = decompose(
        each.mean(1).reshape(grid.shape), rate.reshape(grid.shape), volumes[0], times, np.ones(grid.shape, bool), 7.0,
        grid, settings, echo_chi=volumes[1],
    )  # fmt: skip
    worse = []
    for n, s in enumerate(signal):
        s = s / np.abs(s[0])

        def residual(p, s=s):
            left = _signal(p, times) - s
            return np.concatenate([left.real, left.imag])

        def cost_given(parts, s=s):
            """Least misfit among fits that report these two sources."""

            def pinned(q):
                c = np.array([q[0], q[1], q[2]])
                total = c.sum()
                p = np.array([*c, parts[0] * total / max(c[0], 1e-9), -parts[1] * total / max(c[1], 1e-9), q[3]])
                return residual(p, s)

            start = [0.4, 0.4, 0.4, 12.0]
            return scipy.optimize.least_squares(pinned, start, bounds=(0, np.inf), x_scale=[0.3, 0.3, 0.3, 10]).cost

        bounds = ([0, 0, 0, 0, 0, 0], [np.inf, np.inf, np.inf, 0.5, 0.5, np.inf])
        starts = [truths[n], [0.3, 0.3, 0.3, 0.1, 0.1, 10]]
        scales = [1, 1, 1, 0.1, 0.1, 20]
        best = min(scipy.optimize.least_squares(residual, p, bounds=bounds, x_scale=scales).cost for p in starts)
        worse.append(cost_given([float(v.ravel()[n]) for v in found]) / best)
    print("cost over the least", np.round(worse, 3))
    assert np.median(worse) < 1.02
    assert max(worse) < 1.2


def test_hollow_cylinders_are_looked_up_as_by_a_search_over_the_table():
    rng = np.random.default_rng(0)
    times, shape = 0.003 * np.arange(1, 9), (2, 3, 2)
    region = np.ones(shape, dtype=bool)
    reversible = rng.uniform(15, 40, shape).astype(np.float32)
    magnitude = np.exp(-rng.uniform(15, 60, shape) * times[:, None, None, None]) + 0.01 * rng.random((8, *shape))
    magnitude = magnitude.astype(np.float32)
    fraction, ratio = look_up(magnitude, reversible, region, times, 7.0)
    gradient_echo, spin_echo = decays(times, 7.0)
    own = np.array([[np.polyfit(times, np.log(s / g), 1)[0] for s, g in zip(spin_echo, a, strict=True)]
                    for a in gradient_echo]).clip(0)  # fmt: skip
    for v in np.ndindex(*shape):
        m = magnitude[(slice(None), *v)].astype(float)

        def misfit(decay, m=m):
            return np.sum((m - decay * (decay @ m) / (decay @ decay)) ** 2)

        candidates = [
            (misfit(gradient_echo[a, k] * np.exp(-(reversible[v] - own[a, k]) * times)), k)
            for a, k in np.ndindex(*own.shape)
            if own[a, k] <= reversible[v]
        ]
        best, k = min(candidates)
        assert fraction[v] == pytest.approx(FRACTIONS[k], abs=1e-6)
        single = scipy.optimize.minimize_scalar(lambda r: misfit(np.exp(-r * times)), (0, 30, 300), tol=1e-10).fun
        assert ratio[v] == pytest.approx(np.sqrt(best / single), rel=2e-2)


def _haar(length: int) -> np.ndarray:
    out = np.zeros((length, length))
    for i in range(length // 2):
        out[i, 2 * i : 2 * i + 2] = np.sqrt(0.5)
        out[length // 2 + i, 2 * i : 2 * i + 2] = np.sqrt(0.5), -np.sqrt(0.5)
    return out


def _shrunk_block(block: np.ndarray, threshold: float) -> np.ndarray:
    """Three levels of the Haar transform of 8 x 8 x 8 voxels, details shrunk, and back."""
    n = block.shape[0]
    if n == 1:
        return block
    h = _haar(n)
    c = np.einsum("ai,bj,ck,ijk->abc", h, h, h, block)
    means = c[: n // 2, : n // 2, : n // 2].copy()
    c = np.sign(c) * np.maximum(np.abs(c) - threshold, 0)
    c[: n // 2, : n // 2, : n // 2] = _shrunk_block(means, threshold)
    return np.einsum("ai,bj,ck,abc->ijk", h, h, h, c)


def _shrunk(volume: np.ndarray, threshold: float, shift: tuple[int, int, int]) -> np.ndarray:
    widths = [(s, -(n + s) % 8) for n, s in zip(volume.shape, shift, strict=True)]
    padded = np.pad(volume, widths, mode="edge")
    for corner in np.ndindex(*(n // 8 for n in padded.shape)):
        part = tuple(slice(8 * c, 8 * c + 8) for c in corner)
        padded[part] = _shrunk_block(padded[part], threshold)
    return padded[tuple(slice(a, a + n) for (a, _), n in zip(widths, volume.shape, strict=True))]


def test_wavesep_is_the_plain_proximal_gradient():
    rng = np.random.default_rng(0)
    shape, coupling = (9, 8, 7), 2.0
    mask = np.ones(shape, dtype=bool)
    rho, chi = 0.1 + 0.03 * rng.standard_normal(shape), 0.05 * rng.standard_normal(shape)
    settings = {"strength": 0.5, "coupling": coupling, "iterations": 12}
    found = wavesep(chi, 137 * rho, mask, STRENGTH, Grid(shape), wavesep.method.configure(settings), r2prime=137 * rho)
    rho = np.maximum(rho, 0)
    start = [(rho + chi) / 2, (rho - chi) / 2]
    thresholds = [0.5 * map_noise(s.astype(np.float32), mask) for s in start]
    maps = [np.maximum(s, 0) for s in start]
    ahead, momentum, mean, size = list(maps), 1.0, [0, 0], 0.5 / coupling
    for n in range(12):
        slopes = ahead[0] - ahead[1] - chi, coupling * (ahead[0] + ahead[1] - rho)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        for i, sign in enumerate((1, -1)):
            moved = ahead[i] - size * (sign * slopes[0] + slopes[1])
            new = np.maximum(_shrunk(moved, 2 * size * thresholds[i], (3 * n % 8, 5 * n % 8, 7 * n % 8)), 0)
            ahead[i], maps[i] = new + (momentum - 1) / following * (new - maps[i]), new
            mean[i] = mean[i] + new / 8 * (n >= 4)
        momentum = following
    np.testing.assert_allclose(found[0], mean[0], atol=1e-5)
    np.testing.assert_allclose(found[1], -mean[1], atol=1e-5)
