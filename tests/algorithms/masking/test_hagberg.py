"""Phase-based mask: noise out, smooth phase in, wraps kept; the same in mm at any voxel size."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.hagberg import HagbergParameters, _sphere_mean, hagberg
from qsmxt.algorithms.masking.plausibility import dice
from qsmxt.geometry import Grid


def ball_of_phase(size: float) -> tuple[np.ndarray, np.ndarray, Grid]:
    """A ball of 24 mm radius with a wrapping linear phase in noise."""
    n = round(64 / size)
    grid = Grid((n, n, n), (size, size, size))
    x = (np.arange(n) - (n - 1) / 2) * size
    ball = x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2 <= 24**2
    noise = np.random.default_rng(0).uniform(-np.pi, np.pi, grid.shape)
    ramp = np.angle(np.exp(1j * (0.25 * x[:, None, None] + 0 * noise)))
    return np.where(ball, ramp, noise).astype(np.float32), ball, grid


@pytest.mark.parametrize("size", [1.0, 2.0])
def test_smooth_phase_is_in_and_noise_is_out(size):
    phase, ball, grid = ball_of_phase(size)
    mask = hagberg(phase, grid)
    assert dice(mask, ball) > 0.93
    x = (np.arange(grid.shape[0]) - (grid.shape[0] - 1) / 2) * size
    core = x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2 <= 20**2
    assert mask[core].all()


def test_echoes_are_averaged():
    phase, ball, grid = ball_of_phase(2.0)
    other = np.random.default_rng(1).uniform(-np.pi, np.pi, grid.shape).astype(np.float32)
    both = np.stack([phase, np.where(ball, phase, other)])
    assert dice(hagberg(both, grid), ball) > 0.93


def test_pure_noise_gives_nothing_and_a_constant_everything():
    grid = Grid((24, 24, 24))
    noise = np.random.default_rng(0).uniform(-np.pi, np.pi, grid.shape).astype(np.float32)
    assert not hagberg(noise, grid).any()
    assert hagberg(np.ones(grid.shape, np.float32), grid).all()


def test_mean_over_the_sphere_ends_at_the_volume():
    grid = Grid((9, 9, 9))
    assert np.allclose(_sphere_mean(np.full(grid.shape, 3.0, np.float32), grid, 4.0), 3.0, atol=1e-4)
    point = np.zeros(grid.shape, np.float32)
    point[4, 4, 4] = 1
    assert _sphere_mean(point, grid, 1.0)[4, 4, 5] == pytest.approx(1 / 7, abs=1e-5)


def test_the_radius_is_at_least_two_voxels():
    phase, _, grid = ball_of_phase(2.0)
    fine = hagberg(phase, grid, HagbergParameters(radius=0.5))
    np.testing.assert_array_equal(fine, hagberg(phase, grid, HagbergParameters(radius=4.0)))
