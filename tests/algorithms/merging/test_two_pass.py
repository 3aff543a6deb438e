"""Two passes: every voxel from exactly one of them, nothing outside the mask, no step at the seam."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.merging.two_pass import TwoPassParameters, two_pass
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

GRID = Grid((16, 14, 12))


#: The reliable map wherever there is one.
EVERYWHERE = TwoPassParameters(reach=0)


def _masks() -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[2:14, 2:12, 2:10] = True
    reliable = mask.copy()
    reliable[6:9, 5:8, 4:7] = False
    reliable[2] = False
    return reliable, mask


def _maps() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.normal(0, 0.05, GRID.shape).astype(np.float32) for _ in range(2))  # type: ignore[return-value]


def test_every_voxel_comes_from_exactly_one_map():
    (reliable, mask), (first, second) = _masks(), _maps()
    merged = two_pass(first, reliable, second, mask, GRID, TwoPassParameters(reach=0, ring=0))
    np.testing.assert_array_equal(merged[reliable], first[reliable])
    np.testing.assert_array_equal(merged[mask & ~reliable], second[mask & ~reliable])
    assert not merged[~mask].any()


def test_a_constant_between_the_maps_leaves_no_step():
    (reliable, mask), (first, _) = _masks(), _maps()
    merged = two_pass(first, reliable, first + np.float32(0.3), mask, GRID, EVERYWHERE)
    np.testing.assert_allclose(merged, np.where(mask, first, 0), atol=1e-6)
    around = two_pass(first, reliable, first + np.float32(0.3), mask, GRID, TwoPassParameters(reach=4))
    np.testing.assert_allclose(around, np.where(mask, first + np.float32(0.3), 0), atol=1e-6)


def test_only_the_seam_decides_about_the_constant():
    reliable, mask = _masks()
    first = np.zeros(GRID.shape, dtype=np.float32)
    second = np.full(GRID.shape, 0.1, dtype=np.float32)
    second[12:] = 5.0  # farther than two voxels from every hole
    merged = two_pass(first, reliable, second, mask, GRID, EVERYWHERE)
    np.testing.assert_allclose(merged, 0, atol=1e-6)


def test_a_mask_without_holes_returns_the_reliable_map():
    _, mask = _masks()
    first, second = _maps()
    np.testing.assert_array_equal(two_pass(first, mask, second, mask, GRID, EVERYWHERE), np.where(mask, first, 0))
    np.testing.assert_array_equal(two_pass(first, mask, second, mask, GRID), np.where(mask, second, 0))


def test_reliable_voxels_outside_the_mask_get_nothing():
    reliable, mask = _masks()
    reliable[0, 0, 0] = True
    first, second = _maps()
    assert two_pass(first, reliable, second, mask, GRID)[0, 0, 0] == 0


def test_values_that_are_no_numbers_are_refused():
    (reliable, mask), (first, second) = _masks(), _maps()
    second[7, 6, 5] = np.nan
    with pytest.raises(InputError, match="filled_chi"):
        two_pass(first, reliable, second, mask, GRID)


def test_the_reliable_map_is_taken_around_holes_and_nowhere_else():
    grid = Grid((60, 30, 30))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[1:59, 1:29, 1:29] = True
    reliable = mask.copy()
    reliable[12:15, 14:16, 14:16] = False  # a hole inside
    reliable[1:3] = reliable[:, 1:2] = False  # the rim
    x = np.arange(60)[:, None, None] - 13
    streak = (np.exp(-np.abs(x) / 2) * np.ones(grid.shape)).astype(np.float32)
    first = np.full(grid.shape, 0.05, dtype=np.float32)  # the truth, 0, plus a constant
    merged = two_pass(first, reliable, streak, mask, grid, TwoPassParameters(reach=20))
    far = np.s_[36:58, 2:28, 2:28]
    np.testing.assert_array_equal(merged[far], streak[far])
    beside = np.s_[16:18, 14:16, 14:16]
    assert np.abs(merged[beside]).max() < 0.05 * streak[beside].max()
    np.testing.assert_array_equal(merged[12:15, 14:16, 14:16], streak[12:15, 14:16, 14:16])
    assert not merged[~mask].any()
