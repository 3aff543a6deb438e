"""Strong sources are found first and leave no trace in the tissue."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.inversion.star import STARParameters, star
from qsmxt.algorithms.inversion.tv import TVParameters, tv


@pytest.fixture(scope="module")
def bleed(spheres):
    """The spheres with a bleed of 3 ppm, and where it is."""
    grid = spheres.grid
    axes = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(grid.shape, grid.voxel_size, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    region = (x + 8) ** 2 + (y + 14) ** 2 + (z + 2) ** 2 <= 4.1**2
    chi = np.where(region, np.float32(3), spheres.chi)
    wide = grid.with_shape(tuple(2 * n for n in grid.shape))
    padded = np.zeros(wide.shape, dtype=np.float32)
    box = tuple(slice(n) for n in grid.shape)
    padded[box] = chi
    field = fourier.filtered(padded, kernels.dipole(wide, "greens"))[box] * spheres.mask
    return chi, np.ascontiguousarray(field, dtype=np.float32), region


def _error(estimate, truth, where):
    x, t = estimate[where] - estimate[where].mean(), truth[where] - truth[where].mean()
    return float(np.linalg.norm(x - t) / np.linalg.norm(t))


def test_a_bleed_streaks_less_into_tissue_than_with_one_weight(spheres, bleed):
    chi, field, region = bleed
    tissue = spheres.mask & ~region
    two = star(field, spheres.mask, spheres.grid)
    one = tv(field, spheres.mask, spheres.grid, TVParameters(weight=STARParameters().strong_weight))
    assert _error(two, chi, tissue) < 0.8 * _error(one, chi, tissue)
    assert two[region].mean() == pytest.approx(3, rel=0.1)


def test_without_strong_sources_the_first_level_changes_nothing(spheres):
    """Then the map is that of the second level alone."""
    none = STARParameters(strong=10.0)
    np.testing.assert_array_equal(
        star(spheres.field, spheres.mask, spheres.grid, none),
        star(spheres.field, spheres.mask, spheres.grid, STARParameters(strong=20.0, strong_weight=5e-3)),
    )
