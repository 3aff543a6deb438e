"""Trimming: dark borders go, dark inclusions stay, bias does not matter."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.trim import TrimParameters, trim, within_margin
from qsmxt.geometry import Grid


def scene() -> tuple[np.ndarray, np.ndarray, Grid]:
    """A mask that encloses an air cavity open to the outside, a thin dark rim and a closed dark inclusion."""
    grid = Grid((40, 40, 40), (2.0, 2.0, 2.0))
    image = np.full(grid.shape, 0.02, dtype=np.float32)
    image[6:34, 6:34, 6:34] = 1.0
    mask = np.zeros(grid.shape, dtype=bool)
    mask[5:35, 5:35, 5:35] = True
    image[6:14, 15:25, 15:25] = 0.02
    image[24:28, 24:28, 24:28] = 0.02
    return mask, image, grid


def test_open_cavities_and_rims_go_and_inclusions_stay():
    mask, image, grid = scene()
    expected = image > 0.5
    expected[24:28, 24:28, 24:28] = True
    np.testing.assert_array_equal(trim(mask, image, grid, TrimParameters(margin=0.0)), expected)


def test_bias_and_scale_do_not_matter():
    mask, image, grid = scene()
    slope = np.exp(np.linspace(-1.2, 1.2, 40))[:, None, None].astype(np.float32)
    kept = trim(mask, image, grid, TrimParameters(margin=0.0))
    np.testing.assert_array_equal(trim(mask, 1000 * slope * image, grid, TrimParameters(margin=0.0)), kept)


def test_the_margin_is_a_distance_from_the_surface_of_the_dark():
    mask, image, grid = scene()
    kept = trim(mask, image, grid, TrimParameters(margin=2.0))
    # The surface lies 1 mm before the centre of the first dark voxel, so 2 mm take one layer and 3 mm two.
    assert not kept[6].any() and kept[7, 10, 10]
    assert not trim(mask, image, grid, TrimParameters(margin=3.0))[7].any()


@pytest.mark.parametrize("size", [1.0, 2.0, 3.0])
def test_margin_counts_half_a_voxel(size):
    dark = np.zeros((1, 1, 21), dtype=bool)
    dark[0, 0, 0] = True
    grid = Grid(dark.shape, (size, size, size))
    reached = int(within_margin(dark, grid, 4.0).sum()) - 1
    assert reached == int((4.0 + size / 2) / size + 1e-9)


def test_an_empty_mask_stays_empty():
    grid = Grid((5, 5, 5))
    assert not trim(np.zeros(grid.shape, bool), np.ones(grid.shape, np.float32), grid).any()
