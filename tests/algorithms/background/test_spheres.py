"""Means over spheres against sums voxel by voxel, and what they do to harmonic functions."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import fourier, morphology
from qsmxt.algorithms.background.spheres import Spheres
from qsmxt.errors import ParameterError
from qsmxt.geometry import Grid

SIZES = [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0), (0.5, 0.8, 2.0)]


def ball_mean(field, grid, radius, at):
    """Plain mean over the voxels within ``radius`` of ``at``."""
    axes = [(np.arange(n) - c) * v for n, c, v in zip(grid.shape, at, grid.voxel_size, strict=True)]
    square = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
    return float(field[square <= radius**2 * (1 + 2e-5)].mean(dtype=np.float64))


def test_means_are_those_over_the_voxels_of_each_sphere():
    grid = Grid((21, 19, 23))
    field = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    depth = morphology.distance(np.ones(grid.shape, bool), grid, 9.0)
    which = np.where(depth > 5.01, 1, np.where(depth > 3.01, 2, np.where(depth > 1.01, 3, 0))).astype(np.uint8)
    radii = (5.0, 3.0, 1.0)
    means = Spheres.on(grid, *radii).means(field, which)
    assert not means[which == 0].any()
    for at in [(10, 9, 11), (6, 7, 8), (3, 5, 16), (2, 2, 2), (17, 9, 3), (10, 16, 20)]:
        assert which[at] > 0
        assert means[at] == pytest.approx(ball_mean(field, grid, radii[which[at] - 1], at), abs=1e-6)


@pytest.mark.parametrize("voxel_size", SIZES)
def test_transfer_function_is_that_of_the_means(voxel_size):
    grid = Grid((30, 32, 28), voxel_size)
    radius = 3.3
    field = np.random.default_rng(1).normal(size=grid.shape).astype(np.float32)
    kept = morphology.erode(np.ones(grid.shape, bool), grid, radius)
    spheres = Spheres.on(grid, radius)
    expected = fourier.filtered(field, spheres.transfer())
    np.testing.assert_allclose(spheres.means(field, kept)[kept], expected[kept], atol=2e-6)
    assert spheres.transfer()[0, 0, 0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("voxel_size", SIZES)
@pytest.mark.parametrize("radius", [3.0, 4.0, 6.0])
def test_mean_of_a_harmonic_polynomial_is_its_value(voxel_size, radius):
    grid = Grid((40, 36, 30), voxel_size)
    x, y, z = (
        ((np.arange(n) - n / 2) * v).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, v) in enumerate(zip(grid.shape, voxel_size, strict=True))
    )
    kept = morphology.erode(np.ones(grid.shape, bool), grid, radius)
    spheres = Spheres.on(grid, radius)
    for harmonic in (
        x + 0 * y * z,
        x * x - z * z + 0 * y,
        y * y - z * z + 0 * x,
        x * y * z,
        z**3 - 3 * z * x * x + 0 * y,
    ):
        field = (harmonic / np.abs(harmonic).max()).astype(np.float32)
        error = (spheres.means(field, kept) - field)[kept]
        assert np.abs(error).max() < 2e-6


@pytest.mark.parametrize("voxel_size", SIZES)
@pytest.mark.parametrize("radius", [3.0, 4.5, 6.0, 8.0])
def test_mean_never_amplifies(voxel_size, radius):
    """The deconvolution and the iterations need 1 - S to be positive but at the origin."""
    transfer = Spheres.on(Grid((48, 48, 48), voxel_size), radius).transfer()
    transfer[0, 0, 0] = 0
    assert transfer.max() < 1
    assert transfer.min() > -1


def test_a_sphere_smaller_than_a_voxel_is_refused():
    with pytest.raises(ParameterError, match=r"largest voxel side \(3 mm\), found 2.5 mm"):
        Spheres.on(Grid((9, 9, 9), (1, 1, 3)), 2.5)
