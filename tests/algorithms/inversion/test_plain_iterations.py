"""Inversions that are stopped early or have no single minimum, against the same steps written down in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg

from qsmxt.algorithms import kernels
from qsmxt.algorithms.background.lbv import LBVParameters, lbv
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.inversion.amppe import amppe
from qsmxt.algorithms.inversion.ilsqr import QUICK_RADIUS, ilsqr
from qsmxt.algorithms.inversion.qsmart import qsmart
from qsmxt.algorithms.inversion.tvtfi import tvtfi
from qsmxt.geometry import Grid
from tests.algorithms import dense
from tests.algorithms.dense import Box
from tests.algorithms.inversion.test_oracles import make, same


def stretched(values: np.ndarray, low: float, high: float, mask: np.ndarray) -> np.ndarray:
    a, b = np.percentile(values[mask], (low, high))
    return np.clip((values - a) / (b - a), 0, 1) if b > a else np.zeros_like(values)


def plain_ilsqr(f: np.ndarray, box: Box, first: int, streaks: int) -> np.ndarray:
    """The three steps of the paper with matrices; both least-squares problems by LSMR of scipy."""
    mask = box.mask
    d, g = dense.dipole(box.grid), dense.gradient(box.grid)
    values, vectors = np.linalg.eigh(d)
    root = np.sqrt(1 - stretched(np.abs(g.T @ (g @ f)), 99, 100, mask)) * mask
    limits = {"atol": 0, "btol": 0, "conlim": 0}
    chi = scipy.sparse.linalg.lsmr(root[:, None] * d, root * f, maxiter=first, **limits)[0] * mask

    def function(of) -> np.ndarray:
        """A function of the dipole, as a matrix; the constant, whose dipole is 0, apart."""
        return vectors @ (of(values)[:, None] * vectors.T)

    constant = np.full((len(f),) * 2, 1.0 / len(f))
    limited = function(lambda v: 1 / (np.where(v < 0, -1, 1) * np.maximum(np.abs(v), 1 / 8)))
    reference = limited @ (f - constant @ f)
    spectrum = dense.dipole_spectrum(box.grid)
    half = np.abs(spectrum[..., : box.grid.shape[2] // 2 + 1]) ** 0.001
    low, high = np.percentile(half, (1, 30))
    weights = dense.convolution(np.clip((np.abs(spectrum) ** 0.001 - low) / (high - low), 0, 1))
    quick = dense.convolution(np.sign(spectrum)) @ f
    sphere = dense.spherical_mean(box.grid, QUICK_RADIUS)
    for _ in range(2):
        quick = weights @ quick + (np.eye(len(f)) - weights) @ (sphere @ (quick * mask))
    slope, intercept = np.polyfit(quick[mask], reference[mask], 1)
    edges = (g @ np.where(mask, slope * quick + intercept, 0)).reshape(3, -1)
    w = np.concatenate([(1 - stretched(np.abs(e), 60, 90, mask)) * mask for e in edges])
    keep = dense.convolution((np.abs(spectrum) < 0.1) * 1.0)
    keep -= constant
    found = scipy.sparse.linalg.lsmr(w[:, None] * (g @ keep), w * (g @ chi), maxiter=streaks, **limits)[0]
    return np.where(mask, chi - keep @ found, 0)


def test_ilsqr_is_the_plain_three_steps():
    case = make((5, 6, 4), (9.0, 10.0, 11.0))
    settings = ilsqr.method.configure({"iterations": 6, "streak_iterations": 60, "tolerance": 0})
    found = ilsqr(case.field, case.mask, case.grid, settings)
    expected = plain_ilsqr(case.f, case.box, 6, 60)
    without = plain_ilsqr(case.f, case.box, 6, 0)
    assert np.linalg.norm(expected - without) > 0.1 * np.linalg.norm(expected)
    same(found, case.box, expected, 1e-2)


def _high_pass(f: np.ndarray, box: Box, grid: Grid, depth: np.ndarray) -> np.ndarray:
    """Field less its mean under a Gaussian in the mask whose width follows the depth; sums over periodic images."""

    def gaussian(width: float) -> np.ndarray:
        out = np.ones((1, 1))
        for n, v in zip(grid.shape, grid.voxel_size, strict=True):
            distance = (np.subtract.outer(np.arange(n), np.arange(n))[..., None] + n * np.arange(-9, 10)) * v
            out = np.kron(out, np.exp(-(distance**2) / (2 * width**2)).sum(-1))
        return out

    levels = np.geomspace(10.0, 20.0, 4)
    means = []
    for width in levels:
        kernel = gaussian(width)
        means.append((kernel @ f) / (kernel @ box.mask))
    position = np.interp(np.clip(depth / 3, 10, 20), levels, np.arange(4))
    lower = np.minimum(position.astype(int), 2)
    part = position - lower
    means = np.array(means)
    rows = np.arange(f.size)
    return np.where(box.mask, f - (1 - part) * means[lower, rows] - part * means[lower + 1, rows], 0)


def test_qsmart_is_ilsqr_of_the_plainly_filtered_field():
    case = make((7, 7, 6), (10.0, 10.0, 10.0), padding=30.0)
    x, y, z = np.indices(case.grid.shape) * 1.0
    field = np.where(case.mask, case.field + 0.05 * x - 0.03 * y * z, 0)
    inner = case.box.extract(field - dense.continuation(field, case.mask, case.grid.voxel_size))
    outside = np.argwhere(~np.pad(case.mask, 1)) - 1
    depth = np.zeros(case.grid.shape)
    for here in np.argwhere(case.mask):
        depth[tuple(here)] = 10 * np.sqrt(((outside - here) ** 2).sum(1).min())
    filtered = _high_pass(inner, case.box, case.box.grid, case.box.extract(depth))
    expected = ilsqr(case.box.restore(filtered).astype(np.float32), case.mask, case.grid)
    found = qsmart(field.astype(np.float32), case.mask, case.grid)
    assert np.linalg.norm(found - expected) < 1e-2 * np.linalg.norm(expected)


def _haar(length: int) -> np.ndarray:
    """One level of the orthonormal Haar transform of a line: means, then differences."""
    out = np.zeros((length, length))
    for i in range(length // 2):
        out[i, 2 * i : 2 * i + 2] = np.sqrt(0.5), np.sqrt(0.5)
        out[length // 2 + i, 2 * i : 2 * i + 2] = np.sqrt(0.5), -np.sqrt(0.5)
    return out


def _wavelets(shape: tuple[int, int, int], levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrix of the transform, and the level of every coefficient (0 finest, -1 for the means)."""
    size = int(np.prod(shape))
    matrix, level_of = np.eye(size), np.full(size, -1)
    index = np.arange(size).reshape(shape)
    for level in range(levels):
        part = index.ravel()
        step = np.ones((1, 1))
        for n in index.shape:
            step = np.kron(step, _haar(n))
        matrix[part] = step @ matrix[part]
        level_of[part] = level
        index = index[tuple(slice(n // 2) for n in index.shape)]
        level_of[index.ravel()] = -1
    return matrix, level_of


def _mixture_weights(residual: np.ndarray, variance: float) -> np.ndarray:
    """Five steps of expectation-maximisation of two Gaussians, the narrow one known."""
    wide, share = 100 * variance, 0.01

    def outlier() -> np.ndarray:
        a = share / np.sqrt(wide) * np.exp(-(residual**2) / (2 * wide))
        b = (1 - share) / np.sqrt(variance) * np.exp(-(residual**2) / (2 * variance))
        return a / (a + b)

    for _ in range(5):
        gamma = outlier()
        share = np.clip(gamma.mean(), 1e-4, 0.5)
        wide = max((gamma * residual**2).sum() / gamma.sum(), 25 * variance)
    gamma = outlier()
    return 1 - gamma + gamma * variance / wide


def test_amppe_is_the_plain_alternation_of_map_and_estimates():
    """A box of 8 x 8 x 8 voxels and one level; estimates, then ADMM with both splits, three rounds."""
    case = make((6, 6, 6), (10.0, 10.0, 10.0))
    assert case.box.grid.shape == (8, 8, 8)
    mask, f, size = case.box.mask, case.f, 512
    d = dense.dipole(case.box.grid)
    wavelets, level = _wavelets((8, 8, 8), 1)
    kept = (wavelets @ mask)[level < 0] > 0.99 * np.sqrt(8)
    finest = (wavelets @ f)[level == 0].reshape(-1)
    diagonal = np.flatnonzero((np.indices((8, 8, 8)) >= 4).all(0).ravel())
    deviation = np.median(np.abs((wavelets @ f)[diagonal][kept])) / 0.6745
    assert finest.size == 448 and kept.any()
    variance, mu, rho = deviation**2, 0.1, 3e-4
    chi = mask * (np.linalg.solve(d @ d + 3e-3 * np.eye(size), d @ f))
    index = np.arange(size).reshape(8, 8, 8)
    turns = [np.roll(index, shift, (0, 1, 2)).ravel() for shift in ((0, 0, 0), (1, 1, 1), (2, 2, 2), (5, 5, 5))]
    normal = np.linalg.inv(mu * d @ d + rho * np.eye(size))
    z, u, target, dual = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size)

    def data_step(predicted: np.ndarray, w: np.ndarray) -> None:
        v = predicted + dual
        fitted = (w * f + mu * v) / (w + mu)
        dual[:], target[:] = v - fitted, 2 * fitted - v

    data_step(np.zeros(size), mask * 1.0)
    for _ in range(3):
        w = np.zeros(size)
        w[mask] = _mixture_weights((d @ chi - f)[mask], variance)
        scale = np.abs((wavelets @ chi)[level == 0]).mean()
        limit = variance * mask.mean() / (scale * rho)
        for _ in range(12):
            right = mu * d @ target + rho * (z - u)
            new = normal @ (right - right.mean())
            data_step(d @ new, w)
            v, z = new + u, np.zeros(size)
            for turn in turns:
                c = wavelets @ v[turn]
                c = np.where(level == 0, np.sign(c) * np.maximum(np.abs(c) - limit, 0), c)
                z[turn] += wavelets.T @ c / 4
            u = v - z
        chi = new
    settings = amppe.method.configure({"levels": 1, "rounds": 3})
    same(amppe(case.field, case.mask, case.grid, settings), case.box, chi, 1e-3)


@pytest.mark.parametrize("edge", [0.03, 1.0])
def test_tvtfi_is_the_plain_iteration(edge):
    """Both splits over-relaxed, firm shrinkage in the mask, free sources outside, from the boundary values on."""
    case = make((6, 7, 6), (9.0, 10.0, 11.0))
    x, y, z = np.indices(case.grid.shape) * 1.0
    field = np.where(case.mask, case.field + 0.05 * x - 0.03 * y * z, 0).astype(np.float32)
    settings = {"weight": 2e-3, "margin": 10.0, "iterations": 22, "edge": edge, "gradient_penalty": 80.0}
    found, local = tvtfi(field, case.mask, case.grid, tvtfi.method.configure(settings), field_noise=case.noise)
    start, inner = lbv(field, case.mask, case.grid, LBVParameters(tolerance=1e-5, harmonic_degree=4, harmonic_depth=0))
    crop = Crop.around(case.mask, case.grid, margin=10.0, padding=10.0)
    mask = crop.extract(case.mask).ravel()
    f = crop.extract(start).ravel().astype(float)
    w = np.where(inner, 1 / case.noise, 0)
    w = crop.extract(np.minimum(w / np.median(w[inner]), 3) ** 2).ravel()
    d = dense.of_half(kernels.dipole(crop.grid, "greens"), crop.grid.shape)
    g = dense.gradient(crop.grid)
    mu, rho, relaxation, threshold = 0.025, 80 * 2e-3, 1.7, np.tile(mask, 3) / 80
    size = len(f)
    constant = np.full((size, size), 1.0 / size)
    inverse = np.linalg.inv(rho * g.T @ g + mu * d @ d + constant)

    def shrunk(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z and u of v: the clipped part fades to 0 at the slope ``edge``."""
        u = np.clip(v, -threshold, threshold) * np.clip((edge - np.abs(v)) / (edge - 1 / 80), 0, 1)
        return v - u, u

    v1, z1, u1 = (np.zeros(3 * size) for _ in range(3))
    z2 = w * f / (w + mu)
    u2, predicted, x = -z2, np.zeros(size), np.zeros(size)
    for _ in range(22):
        v1 = relaxation * (g @ x) + (1 - relaxation) * z1 + u1
        z1, u1 = shrunk(v1)
        v2 = relaxation * predicted + (1 - relaxation) * z2 + u2
        z2 = (w * f + mu * v2) / (w + mu)
        u2 = v2 - z2
        right = rho * g.T @ (z1 - u1) + mu * d @ (z2 - u2)
        x = inverse @ (right - right.mean())
        predicted = d @ x
    wanted = crop.restore(x.reshape(crop.grid.shape)) * case.mask
    assert np.linalg.norm(found - wanted) < 5e-3 * np.linalg.norm(wanted)
    expected = crop.restore((f - d @ np.where(mask, 0, x)).reshape(crop.grid.shape)) * case.mask
    assert np.linalg.norm(local - expected) < 5e-3 * np.linalg.norm(expected)
