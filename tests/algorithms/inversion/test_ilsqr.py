"""Streaks are taken out, edges stay."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.inversion.ilsqr import ILSQRParameters, ilsqr, streak_operator
from qsmxt.geometry import Grid


def test_removing_streaks_helps(spheres):
    with_streaks = ilsqr(spheres.field, spheres.mask, spheres.grid, ILSQRParameters(streak_iterations=0))
    without = ilsqr(spheres.field, spheres.mask, spheres.grid)
    assert spheres.error(without) < 0.8 * spheres.error(with_streaks)


@pytest.mark.parametrize("shape", [(12, 14, 10), (11, 13, 9)])
def test_the_operator_of_the_streaks_has_its_adjoint(shape):
    grid = Grid(shape, (1.0, 1.5, 2.0))
    rng = np.random.default_rng(0)
    half = (*shape[:2], shape[2] // 2 + 1)
    k = [np.minimum(np.arange(n), n - np.arange(n)) for n in shape]  # even in k, as the cone is
    radius = k[0][:, None, None] + 2 * k[1][None, :, None] + k[2][None, None, : half[2]]
    cone = (radius % 3 == 1).astype(np.float32)
    weights = rng.random((3, *shape)).astype(np.float32)
    forward, adjoint = streak_operator(weights, cone, grid)
    x = rng.standard_normal(shape).astype(np.float32)
    y = rng.standard_normal((3, *shape)).astype(np.float32)
    left, right = np.vdot(forward(x), y), np.vdot(x, adjoint(y))
    assert abs(left - right) < 1e-5 * np.linalg.norm(forward(x)) * np.linalg.norm(y)
