"""Spheres in an ellipsoid and their field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels
from qsmxt.geometry import Grid


@dataclass(frozen=True)
class Phantom:
    """Susceptibility (ppm), mask, local field (ppm) and magnitude on one grid."""

    grid: Grid
    chi: np.ndarray
    mask: np.ndarray
    field: np.ndarray
    magnitude: np.ndarray

    def arrays(self, **more) -> dict:
        """What every inversion may consume."""
        return {"local_field": self.field, "total_field": self.field, "mask": self.mask} | more

    def error(self, chi: np.ndarray) -> float:
        """Demeaned error in the mask, percent."""
        x, t = (a[self.mask].astype(np.float64) - a[self.mask].mean(dtype=np.float64) for a in (chi, self.chi))
        return 100 * float(np.linalg.norm(x - t) / np.linalg.norm(t))


def four_spheres(
    shape: tuple[int, int, int] = (40, 44, 36),
    voxel: tuple[float, float, float] = (2.0, 2.0, 2.0),
    b0: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> Phantom:
    """Spheres of -0.05 to 0.2 ppm in an ellipsoid with a margin of four voxels."""
    grid = Grid(shape, voxel, b0)
    axes = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(shape, voxel, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radii = [(n / 2 - 4) * v for n, v in zip(shape, voxel, strict=True)]
    mask = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 <= 1
    chi = np.zeros(shape, dtype=np.float32)
    for (cx, cy, cz), radius, value in (
        ((0, 0, 0), 8, 0.1), ((15, 8, 5), 6, 0.2), ((-14, 5, -8), 7, -0.05), ((4, -18, 10), 5, 0.15),
    ):  # fmt: skip
        chi[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 <= radius**2] = value
    wide = grid.with_shape(tuple(2 * n for n in shape))
    padded = np.zeros(wide.shape, dtype=np.float32)
    box = tuple(slice(n) for n in shape)
    padded[box] = chi
    field = fourier.filtered(padded, kernels.dipole(wide, "greens"))[box] * mask
    magnitude = np.where(mask, 1 + 2 * np.abs(chi), 0.02).astype(np.float32)
    return Phantom(grid, chi, mask, np.ascontiguousarray(field, dtype=np.float32), magnitude)


@pytest.fixture(scope="session")
def spheres() -> Phantom:
    """B0 along the last axis, cubic voxels."""
    return four_spheres()


@pytest.fixture(scope="session")
def oblique() -> Phantom:
    """B0 oblique, voxels of three different edges."""
    return four_spheres((44, 38, 30), (1.8, 2.0, 2.6), (0.3, -0.3, 0.9))
