"""LSMR against scipy's, and its closed form for diagonal operators."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import diags
from scipy.sparse.linalg import lsmr as reference

from qsmxt.algorithms.solvers import diagonal_filter, lsmr, lsmr_of_data, lsmr_of_normal
from qsmxt.algorithms.vectors import norm


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_every_iterate_is_that_of_the_published_algorithm(iterations):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((60, 40)).astype(np.float32)
    b = rng.standard_normal(60).astype(np.float32)
    found = lsmr(lambda x: a @ x, lambda y: a.T @ y, b, iterations=iterations, tolerance=0)
    wanted = reference(a.astype(float), b.astype(float), atol=0, btol=0, conlim=0, maxiter=iterations)
    np.testing.assert_allclose(found.x, wanted[0], atol=1e-6)
    assert found.iterations == iterations
    assert found.residual == pytest.approx(wanted[4] / (wanted[3] * wanted[5]), rel=1e-3)


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_products_with_either_square_of_the_operator_give_the_same(iterations):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((60, 40)).astype(np.float32)
    b = rng.standard_normal(60).astype(np.float32)
    wanted = lsmr(lambda x: a @ x, lambda y: a.T @ y, b, iterations=iterations, tolerance=0)
    data = lsmr_of_data(lambda y: a @ (a.T @ y), b, iterations=iterations, tolerance=0)
    normal = lsmr_of_normal(lambda x: a.T @ (a @ x), a.T @ b, norm(b), iterations=iterations, tolerance=0)
    np.testing.assert_allclose(a.T @ data.x, wanted.x, atol=2e-5 * np.abs(wanted.x).max())
    np.testing.assert_allclose(normal.x, wanted.x, atol=2e-5 * np.abs(wanted.x).max())
    assert data.iterations == normal.iterations == iterations
    assert data.residual == pytest.approx(wanted.residual, rel=1e-3)
    assert normal.residual == pytest.approx(wanted.residual, rel=1e-3)


def test_tolerance_is_honoured():
    rng = np.random.default_rng(1)
    a = rng.standard_normal((50, 50)).astype(np.float32)
    b = rng.standard_normal(50).astype(np.float32)
    loose = lsmr(lambda x: a @ x, lambda y: a.T @ y, b, iterations=200, tolerance=1e-1)
    tight = lsmr(lambda x: a @ x, lambda y: a.T @ y, b, iterations=200, tolerance=1e-3)
    assert loose.iterations < tight.iterations
    assert tight.residual <= 1e-3 < loose.residual <= 1e-1


def test_nothing_from_nothing():
    solution = lsmr(lambda x: 2 * x, lambda y: 2 * y, np.zeros((3, 4), np.float32))
    assert solution.iterations == 0
    assert not solution.x.any()
    nothing = np.zeros(5, np.float32)
    assert not lsmr_of_data(lambda y: 4 * y, nothing, tolerance=0, iterations=3).x.any()
    assert not lsmr_of_normal(lambda x: 4 * x, nothing, 0.0, tolerance=0, iterations=3).x.any()


@pytest.mark.parametrize("iterations", [1, 4, 8])
def test_diagonal_filter_is_lsmr_on_a_diagonal(iterations):
    rng = np.random.default_rng(2)
    diagonal = rng.uniform(-2 / 3, 1 / 3, (8, 8, 5)).astype(np.float32)
    data = (rng.standard_normal((8, 8, 5)) + 1j * rng.standard_normal((8, 8, 5))).astype(np.complex64)
    weights = np.ones((1, 1, 5), dtype=np.float32)
    found = diagonal_filter(diagonal, data, weights, iterations) * data
    operator = diags(np.concatenate([diagonal.ravel(), diagonal.ravel()]).astype(float))
    right = np.concatenate([data.real.ravel(), data.imag.ravel()]).astype(float)
    wanted = reference(operator, right, atol=0, btol=0, conlim=0, maxiter=iterations)[0]
    found = np.concatenate([found.real.ravel(), found.imag.ravel()])
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_diagonal_filter_of_nothing_is_zero():
    assert not diagonal_filter(np.zeros((2, 2, 2), np.float32), np.ones((2, 2, 2), np.complex64), np.ones(2), 3).any()


def test_norm_sums_in_double_precision():
    assert norm(np.full((100, 100, 100), 0.1, dtype=np.float32)) == pytest.approx(100.0, rel=1e-7)
