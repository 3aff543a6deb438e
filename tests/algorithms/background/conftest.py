"""A small region with a known local and background field, and the plain form of the spherical mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels
from qsmxt.geometry import Grid


@dataclass
class Case:
    """Fields (ppm) on a grid: ``total = local + background`` in the mask."""

    grid: Grid
    mask: np.ndarray
    local: np.ndarray
    background: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.local + self.background

    def error(self, found: np.ndarray, kept: np.ndarray) -> float:
        """Demeaned error over the demeaned local field."""
        a, t = found[kept] - found[kept].mean(), self.local[kept] - self.local[kept].mean()
        return float(np.linalg.norm(a - t) / np.linalg.norm(t))


def make_case(shape=(40, 44, 36), voxel_size=(1.0, 1.0, 1.0), direction=(0.0, 0.0, 1.0)) -> Case:
    """Spheres in an ellipsoid and a strong one outside, all by the Green's dipole."""
    grid = Grid(shape, voxel_size, direction)
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * v).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, v) in enumerate(zip(shape, voxel_size, strict=True))
    )
    half = [n * v / 2 for n, v in zip(shape, voxel_size, strict=True)]
    mask = (x / (half[0] - 3)) ** 2 + ((y + 3) / (half[1] - 7)) ** 2 + (z / (half[2] - 3)) ** 2 <= 1
    inner, outer = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for (a, b, c), radius, chi in (((-4, 1, 2), 3.0, 0.2), ((5, -6, -3), 2.5, -0.2), ((2, 4, 5), 2.0, 0.3)):
        inner[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 <= radius**2] = chi
    outer[(x - 3) ** 2 + (y - half[1] + 2.5) ** 2 + (z - 2) ** 2 <= 4] = 9.0
    wide = grid.with_shape(tuple(2 * n for n in shape))
    dipole = kernels.dipole(wide, "greens")

    def field(chi):
        padded = np.zeros(wide.shape, np.float32)
        padded[: shape[0], : shape[1], : shape[2]] = chi
        return fourier.filtered(padded, dipole)[: shape[0], : shape[1], : shape[2]] * mask

    return Case(grid, mask, field(inner), field(outer))


@pytest.fixture(scope="session")
def case() -> Case:
    return make_case()


@pytest.fixture(scope="session")
def oblique_case() -> Case:
    return make_case((36, 40, 18), (1.0, 1.0, 2.0), (0.3, -0.4, 0.85))


@pytest.fixture(scope="session")
def plain_mean():
    """The mean over spheres by a Fourier transform on a padded grid, float64."""

    def mean(field: np.ndarray, radius: float) -> np.ndarray:
        r = int(radius)
        padded = np.pad(field.astype(float), r)
        x, y, z = np.ogrid[tuple(slice(0, n) for n in padded.shape)]
        x, y, z = (np.minimum(c, n - c) for c, n in zip((x, y, z), padded.shape, strict=True))
        ball = (x * x + y * y + z * z <= radius * radius + 1e-6).astype(float)
        ball /= ball.sum()
        out = np.fft.irfftn(np.fft.rfftn(padded) * np.fft.rfftn(ball), padded.shape, axes=(0, 1, 2))
        return out[r:-r, r:-r, r:-r]

    return mean
