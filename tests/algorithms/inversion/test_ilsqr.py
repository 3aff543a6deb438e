"""Streaks are taken out, edges stay."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import fourier
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.differences import divergence, gradient
from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.inversion.ilsqr import ILSQRParameters, Streaks, ilsqr
from qsmxt.algorithms.vectors import norm
from qsmxt.geometry import Grid


def test_removing_streaks_helps(spheres):
    with_streaks = ilsqr(spheres.field, spheres.mask, spheres.grid, ILSQRParameters(streak_iterations=0))
    without = ilsqr(spheres.field, spheres.mask, spheres.grid)
    assert spheres.error(without) < 0.8 * spheres.error(with_streaks)


@pytest.mark.parametrize("shape", [(12, 14, 10), (11, 13, 9)])
def test_the_operator_of_the_streaks_is_the_weighted_gradient_inside_the_cone(shape):
    grid = Grid(shape, (1.0, 1.5, 2.0))
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, dtype=bool)
    mask[3:-3, 4:-2, 2:-2] = True
    domain = Domain(Crop(grid, (0, 0, 0), shape, (0, 0, 0), grid), np.zeros(shape, np.float32), mask)
    k = [np.minimum(np.arange(n), n - np.arange(n)) for n in shape]  # even in k, as the cone is
    radius = k[0][:, None, None] + 2 * k[1][None, :, None] + k[2][None, None, : shape[2] // 2 + 1]
    cone = radius % 3 == 1
    weights = rng.random((3, *shape)).astype(np.float32) * mask
    operator = Streaks(weights, cone, domain)
    volume = rng.standard_normal(shape).astype(np.float32)
    inside = fourier.filtered(volume, cone)
    packed = operator.packing.pack(fourier.forward(volume)).view(np.float32)
    np.testing.assert_allclose(operator.volume(packed), inside, atol=1e-5)
    assert norm(packed) == pytest.approx(norm(inside), rel=1e-5)
    wanted = fourier.filtered(divergence(weights * gradient(inside, grid), grid), cone)
    np.testing.assert_allclose(operator.volume(operator.normal(packed)), wanted, atol=1e-5)
    right, size = operator.right(volume)
    slopes = gradient(volume, grid)
    assert size == pytest.approx(norm(np.sqrt(weights) * slopes), rel=1e-5)
    wanted = fourier.filtered(divergence(weights * slopes, grid), cone)
    np.testing.assert_allclose(operator.volume(right), wanted, atol=1e-5)
