"""Morphology against the obvious implementation: every pair of voxels looked at."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from qsmxt.algorithms import morphology, parallel
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SIZES = [(1.0, 1.0, 1.0), (0.5, 2.0, 1.1), (2.0, 0.7, 3.0)]


def blob(shape: tuple[int, int, int] = (17, 19, 23), seed: int = 0) -> np.ndarray:
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return noise > -0.02


def exact_distance(mask: np.ndarray, voxel_size: tuple[float, float, float]) -> np.ndarray:
    return scipy.ndimage.distance_transform_edt(np.pad(mask, 1), sampling=voxel_size)[1:-1, 1:-1, 1:-1]


@pytest.mark.parametrize("voxel_size", SIZES)
@pytest.mark.parametrize("cap", [1.0, 3.7, 50.0])
def test_distance_is_the_capped_exact_one(voxel_size, cap):
    mask = blob()
    expected = np.minimum(exact_distance(mask, voxel_size), cap)
    np.testing.assert_allclose(morphology.distance(mask, Grid(mask.shape, voxel_size), cap), expected, rtol=1e-6)


def test_the_border_can_belong_to_the_mask():
    mask = blob(seed=3)
    size = (1.0, 2.0, 0.8)
    expected = np.minimum(scipy.ndimage.distance_transform_edt(mask, sampling=size), 4.0)
    got = morphology.distance(mask, Grid(mask.shape, size), 4.0, border=True)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 9, 11), (9, 1, 11), (9, 11, 1), (1, 1, 1)])
def test_thin_volumes(shape):
    mask = np.ones(shape, dtype=bool)
    expected = np.minimum(exact_distance(mask, (1.0, 1.5, 2.0)), 5.0)
    np.testing.assert_allclose(morphology.distance(mask, Grid(shape, (1.0, 1.5, 2.0)), 5.0), expected, rtol=1e-6)


@pytest.mark.parametrize("voxel_size", SIZES)
@pytest.mark.parametrize("radius", [1.0, 2.0, 3.3])
def test_erosion_and_dilation_are_those_by_a_ball(voxel_size, radius):
    mask = blob(seed=1)
    grid = Grid(mask.shape, voxel_size)
    half = [int(radius / v + 1e-6) for v in voxel_size]
    x, y, z = np.ogrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1, -half[2] : half[2] + 1]
    vx, vy, vz = voxel_size
    ball = (x * vx) ** 2 + (y * vy) ** 2 + (z * vz) ** 2 <= radius**2 * (1 + 1e-6)
    assert np.array_equal(
        morphology.erode(mask, grid, radius), scipy.ndimage.binary_erosion(mask, ball, border_value=False)
    )
    assert np.array_equal(morphology.dilate(mask, grid, radius), scipy.ndimage.binary_dilation(mask, ball))
    assert np.array_equal(morphology.closing(mask, grid, radius) & mask, mask)
    assert not (morphology.opening(mask, grid, radius) & ~mask).any()


def two_blocks(gap: int) -> np.ndarray:
    mask = np.zeros((20, 20, 20 + gap), dtype=bool)
    mask[3:17, 3:17, 3:10] = True
    mask[3:17, 3:17, 10 + gap : 17 + gap] = True
    return mask


def test_closing_fills_a_narrow_cleft_and_no_wide_one():
    for gap, filled in ((2, True), (6, False)):
        mask = two_blocks(gap)
        closed = morphology.closing(mask, Grid(mask.shape), 2.0)
        assert closed[10, 10, 10 : 10 + gap].all() == filled


def test_opening_cuts_a_thin_bridge_and_keeps_the_blocks():
    mask = two_blocks(6)
    mask[10, 10, 10:16] = True
    opened = morphology.opening(mask, Grid(mask.shape), 2.0)
    assert not opened[10, 10, 12:14].any()
    assert opened[10, 10, 4:9].all()


def test_erosion_by_nothing_is_the_mask_and_a_copy():
    mask = blob()
    same = morphology.erode(mask, Grid(mask.shape), 0.0)
    assert np.array_equal(same, mask)
    assert not np.shares_memory(same, mask)


def test_largest_component_and_holes():
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[1:6, 1:6, 1:6] = True
    mask[3, 3, 3] = False
    mask[8:11, 8:11, 8:11] = True
    mask[6, 6, 6] = True
    big = morphology.largest_component(mask)
    assert big.sum() == 124
    assert morphology.largest_component(mask, neighbours=26).sum() == 125
    assert morphology.fill_holes(mask).sum() == mask.sum() + 1
    assert np.array_equal(morphology.fill_holes(mask, largest=0), mask)


def test_a_hole_open_to_the_edge_of_the_volume_stays_open():
    mask = np.ones((6, 6, 6), dtype=bool)
    mask[3, 3, :3] = False
    mask[1, 1, 2:4] = False
    filled = morphology.fill_holes(mask)
    assert not filled[3, 3, :3].any()
    assert filled[1, 1].all()


def test_empty_masks_stay_empty():
    empty = np.zeros((5, 6, 7), dtype=bool)
    grid = Grid(empty.shape)
    for result in (
        morphology.erode(empty, grid, 2.0),
        morphology.dilate(empty, grid, 2.0),
        morphology.largest_component(empty),
        morphology.fill_holes(empty),
    ):
        assert not result.any()


def test_wrong_shape_and_wrong_neighbourhood_are_named():
    with pytest.raises(InputError, match=r"mask: expected shape \(4, 4, 4\)"):
        morphology.erode(np.ones((4, 4, 5), bool), Grid((4, 4, 4)), 1.0)
    with pytest.raises(InputError, match="neighbours"):
        morphology.largest_component(np.ones((4, 4, 4), bool), neighbours=8)


def test_same_bytes_for_any_number_of_threads():
    mask = blob((40, 30, 20))
    try:
        results = []
        for threads in (1, 2, 8):
            parallel.set_thread_count(threads)
            results.append(morphology.distance(mask, Grid(mask.shape, (1.0, 1.2, 2.0)), 6.0).tobytes())
    finally:
        parallel.set_thread_count(None)
    assert results[0] == results[1] == results[2]
