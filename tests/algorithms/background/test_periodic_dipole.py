"""The periodic dipole against a direct sum over images, and its harmonicity."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.background.periodic_dipole import periodic_dipole
from qsmxt.geometry import Grid

CASES = [
    ((28, 24, 26), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)),
    ((28, 24, 26), (1.0, 1.0, 1.0), (0.3, -0.5, 0.8)),
    ((40, 40, 26), (1.0, 1.0, 2.0), (0.3, -0.5, 0.8)),
]


@pytest.mark.parametrize(("shape", "voxel_size", "direction"), CASES)
def test_sum_over_images(shape, voxel_size, direction):
    grid = Grid(shape, voxel_size, direction)
    kernel = fourier.inverse(periodic_dipole(grid).astype(np.complex64), shape)
    wide = grid.with_shape(tuple(2 * n for n in shape))
    single = fourier.inverse(kernels.dipole(wide, "greens").astype(np.complex64), wide.shape)
    size = np.array(shape) * voxel_size
    n = np.arange(-16, 17)
    images = np.stack(np.meshgrid(n, n, n, indexing="ij"), -1).reshape(-1, 3) * size
    far = np.linalg.norm(images, axis=1)
    images = images[(far > 0) & (far < 16 * size.min())]
    differences = []
    for at in ((1, 0, 0), (0, 0, 1), (3, 2, 1), (0, 7, 3), (12, 10, 4), (13, 2, 2), (6, 11, 11)):
        r = images + np.array(at) * voxel_size
        square = (r**2).sum(1)
        along = r @ np.array(grid.b0_direction)
        images_field = grid.voxel_volume * ((3 * along**2 - square) / (4 * np.pi * square**2.5)).sum()
        differences.append(single[at] + images_field - kernel[at])
    # the sum over a sphere of images and the zero mean differ by a constant
    assert np.ptp(differences) < 2e-6 * np.abs(kernel).max()


@pytest.mark.parametrize(("shape", "voxel_size", "direction"), CASES)
def test_harmonic_away_from_the_source(shape, voxel_size, direction):
    """The seven-point Laplacian vanishes to its own order; the cut-off dipole fails by a plane through the box."""
    grid = Grid(shape, voxel_size, direction)
    field = fourier.inverse(periodic_dipole(grid).astype(np.complex64), shape)
    laplacian = fourier.filtered(field, kernels.negative_laplacian(grid))
    x, y, z = kernels.offsets(grid)
    far = np.sqrt(x * x + y * y + z * z) > 9
    assert np.abs(laplacian[far]).max() < 2e-3 * np.abs(laplacian).max()
    assert abs(periodic_dipole(grid)[0, 0, 0]) == 0


def test_small_boxes():
    for shape in ((8, 8, 8), (5, 30, 7), (1, 24, 24)):
        spectrum = periodic_dipole(Grid(shape))
        assert np.isfinite(spectrum).all()
        assert spectrum.min() >= -0.75
        assert spectrum.max() <= 0.5
