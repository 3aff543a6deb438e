"""Conjugate gradients on a small dense system."""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.background import conjugate_gradients

SHAPE = (3, 4, 2)
rng = np.random.default_rng(0)
FACTOR = rng.normal(size=(24, 24))
MATRIX = FACTOR @ FACTOR.T + 2 * np.eye(24)
RIGHT = rng.normal(size=SHAPE).astype(np.float32)


def apply(x):
    return (MATRIX @ x.ravel()).reshape(SHAPE).astype(np.float32)


def test_solution_with_and_without_preconditioner():
    expected = np.linalg.solve(MATRIX, RIGHT.ravel().astype(float)).reshape(SHAPE)
    scale = 1 / np.diag(MATRIX).reshape(SHAPE).astype(np.float32)
    for precondition in (None, lambda r: r * scale):
        told = []
        found, count = conjugate_gradients.solve(
            apply, RIGHT.copy(), tolerance=1e-6, iterations=100, precondition=precondition, progress=told.append
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert 1 < count < 60
        assert len(told) == count
        assert told == sorted(told)


def test_the_exact_inverse_takes_one_step():
    inverse = np.linalg.inv(MATRIX)

    def precondition(r):
        return (inverse @ r.ravel()).reshape(SHAPE).astype(np.float32)

    assert (
        conjugate_gradients.solve(apply, RIGHT.copy(), tolerance=1e-4, iterations=9, precondition=precondition)[1] == 1
    )


def test_tolerance_is_the_relative_residual():
    for tolerance in (1e-1, 1e-3):
        found, _ = conjugate_gradients.solve(apply, RIGHT.copy(), tolerance=tolerance, iterations=100)
        assert np.linalg.norm(apply(found) - RIGHT) <= 1.1 * tolerance * np.linalg.norm(RIGHT)


def test_nothing_to_solve():
    found, count = conjugate_gradients.solve(apply, np.zeros_like(RIGHT), tolerance=1e-3, iterations=5)
    assert count == 0
    assert not found.any()
