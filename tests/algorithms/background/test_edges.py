"""Awkward geometry, for every method: a right answer or an error that tells what to do."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import methods

METHODS = methods("background")
TIMES = np.array([0.005, 0.01])

GRIDS = {
    "prime sizes": Grid((31, 29, 37), (1.5, 1.5, 1.5)),
    "huge anisotropy": Grid((66, 60, 9), (0.8, 0.8, 6.4), (0.0, 0.3, 0.95)),
    "long rows": Grid((9, 50, 60), (5.0, 1.0, 1.0), (0.5, 0.5, 0.7)),
}


def harmonic(grid: Grid) -> np.ndarray:
    x, y, z = (
        ((np.arange(n) - n / 2) * v).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, v) in enumerate(zip(grid.shape, grid.voxel_size, strict=True))
    )
    return (0.02 * x - 0.01 * z + 4e-4 * (x * x - 2 * y * y + z * z) + 2e-4 * x * y + 0 * z).astype(np.float32)


def run(key: str, field: np.ndarray, mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    arrays = {"total_field": field, "mask": mask, "echo_times": TIMES, "field_strength": 3.0}
    arrays["offset_free_phase"] = np.angle(np.exp(1j * np.stack([rad_per_ppm(3.0, t) * field for t in TIMES])))
    out = METHODS[key].run(arrays, grid)
    return out["local_field"], out["eroded_mask"]


@pytest.mark.parametrize("key", list(METHODS))
@pytest.mark.parametrize("name", list(GRIDS))
def test_a_mask_up_to_every_edge(key, name):
    grid = GRIDS[name]
    field = harmonic(grid)
    mask = np.ones(grid.shape, bool)
    local, kept = run(key, field, mask, grid)
    assert kept.any()
    assert local[kept].std() < 0.03 * field.std()


@pytest.mark.parametrize("key", list(METHODS))
def test_a_single_slice(key):
    grid = Grid((40, 36, 1), (1.0, 1.0, 2.0))
    field = harmonic(grid)
    mask = np.ones(grid.shape, bool)
    try:
        local, kept = run(key, field, mask, grid)
    except InputError as error:
        assert "pdf" in str(error)  # the remedy
        return
    assert kept.any()
    assert local[kept].std() < 0.1 * field.std()


@pytest.mark.parametrize("key", list(METHODS))
def test_two_separate_regions_and_a_stray_voxel(key):
    grid = Grid((44, 30, 30), (1.5, 1.5, 1.5))
    mask = np.zeros(grid.shape, bool)
    mask[2:20, 3:27, 3:27] = True
    mask[24:42, 3:27, 3:27] = True
    mask[22, 1, 1] = True
    field = harmonic(grid)
    local, kept = run(key, field, mask, grid)
    assert kept[:21].any()
    assert kept[23:].any()
    assert local[kept].std() < 0.03 * field[mask].std()
