"""Differences: closed forms, adjoint, and the fused step against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.differences import Shrinkage, divergence, gradient, stiffness
from qsmxt.geometry import Grid

GRIDS = [
    Grid((8, 6, 10), (1.0, 2.0, 0.5)),
    Grid((7, 5, 3), (0.7, 1.3, 3.0)),
    Grid((40, 3, 4), (1.0, 1.0, 1.0)),
    Grid((1, 6, 5), (1.0, 1.0, 1.0)),
    Grid((4, 1, 1), (1.0, 1.0, 2.0)),
]


def _plain_gradient(x: np.ndarray, grid: Grid) -> np.ndarray:
    return np.stack([(np.roll(x, -1, a) - x) / grid.voxel_size[a] for a in range(3)])


def _plain_adjoint(y: np.ndarray, grid: Grid) -> np.ndarray:
    return sum((np.roll(y[a], 1, a) - y[a]) / grid.voxel_size[a] for a in range(3))


@pytest.mark.parametrize("grid", GRIDS)
def test_gradient_is_the_periodic_forward_difference(grid):
    x = np.random.default_rng(0).standard_normal(grid.shape).astype(np.float32)
    np.testing.assert_allclose(gradient(x, grid), _plain_gradient(x, grid), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_divergence_is_the_adjoint_of_the_gradient(grid):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(grid.shape).astype(np.float32)
    y = rng.standard_normal((3, *grid.shape)).astype(np.float32)
    left = np.sum(gradient(x, grid).astype(np.float64) * y)
    right = np.sum(x.astype(np.float64) * divergence(y, grid))
    assert left == pytest.approx(right, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_gradient_then_adjoint_has_the_symbol_of_the_negative_laplacian(grid):
    x = np.random.default_rng(2).standard_normal(grid.shape).astype(np.float32)
    direct = divergence(gradient(x, grid), grid)
    spectral = fourier.filtered(x, kernels.negative_laplacian(grid))
    np.testing.assert_allclose(direct, spectral, atol=1e-5 * np.abs(direct).max() + 1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_stiffness_is_the_weighted_gradient_and_its_adjoint(grid):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(grid.shape).astype(np.float32)
    weights = rng.uniform(0, 2, (3, *grid.shape)).astype(np.float32)
    expected = _plain_adjoint(weights * _plain_gradient(x.astype(np.float64), grid), grid)
    np.testing.assert_allclose(stiffness(x, weights, grid), expected, atol=1e-5 * np.abs(expected).max() + 1e-6)


def test_stiffness_may_pass_over_rows_without_weights():
    grid = GRIDS[2]
    rng = np.random.default_rng(6)
    x = rng.standard_normal(grid.shape).astype(np.float32)
    weights = rng.uniform(0, 2, (3, *grid.shape)).astype(np.float32)
    weights[:, :11] = 0
    weights[:, 30:] = 0
    rows = np.zeros(grid.shape[:2], dtype=bool)
    rows[11:31] = True
    np.testing.assert_array_equal(stiffness(x, weights, grid, rows=rows), stiffness(x, weights, grid))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_fused_shrinkage_equals_shrink_dual_update_and_divergence(grid, weighted):
    rng = np.random.default_rng(3)
    weights = rng.uniform(0, 2, grid.shape).astype(np.float32) if weighted else None
    shrinkage = Shrinkage(grid, weights)
    limit = 0.3 * (weights if weighted else 1.0)
    dual = np.zeros((3, *grid.shape))
    out = np.empty(grid.shape, dtype=np.float32)
    for _ in range(4):
        x = rng.standard_normal(grid.shape).astype(np.float32)
        shrinkage.step(x, 0.3, out)
        v = _plain_gradient(x.astype(np.float64), grid) + dual
        z = np.sign(v) * np.maximum(np.abs(v) - limit, 0)
        dual = v - z
        np.testing.assert_allclose(shrinkage.dual, dual, atol=2e-6)
        np.testing.assert_allclose(out, _plain_adjoint(z - dual, grid), atol=2e-5)
