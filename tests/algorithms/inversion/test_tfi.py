"""One-step methods do not see harmonic backgrounds."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.inversion.tfi import tfi
from qsmxt.algorithms.inversion.tgv import tgv
from qsmxt.errors import InputError
from qsmxt.geometry import Grid


def _harmonic(grid: Grid) -> np.ndarray:
    x, y, z = np.meshgrid(
        *[(np.arange(n) - n / 2) * v for n, v in zip(grid.shape, grid.voxel_size, strict=True)], indexing="ij"
    )
    return (0.01 * x + 0.0004 * (x * x - y * y) + 1e-5 * (2 * z**3 - 3 * z * (x * x + y * y))).astype(np.float32)


@pytest.mark.parametrize("method", [tfi, tgv])
def test_a_harmonic_background_changes_nothing(method, spheres):
    total = spheres.field + _harmonic(spheres.grid) * spheres.mask
    assert np.abs(total[spheres.mask]).std() > 5 * np.abs(spheres.field[spheres.mask]).std()
    plain = method(spheres.field, spheres.mask, spheres.grid)
    found = method(total, spheres.mask, spheres.grid)
    assert np.abs(found - plain)[spheres.mask].max() < 0.05 * np.abs(plain).max()


@pytest.mark.parametrize("method", [tfi, tgv])
def test_a_mask_without_interior_is_refused(method):
    grid = Grid((16, 16, 2))
    with pytest.raises(InputError, match="three voxels"):
        method(np.zeros(grid.shape, np.float32), np.ones(grid.shape, bool), grid)


def test_untrusted_voxels_do_not_count(spheres):
    field = spheres.field.copy()
    quality = np.ones_like(field)
    bad = np.zeros_like(spheres.mask)
    bad[12:15, 20:23, 14:17] = True
    field[bad] += 0.5
    quality[bad] = 0
    blind = tfi(field, spheres.mask, spheres.grid, magnitude=spheres.magnitude)
    informed = tfi(field, spheres.mask, spheres.grid, magnitude=spheres.magnitude, fit_quality=quality)
    assert spheres.error(informed) < 0.5 * spheres.error(blind)
