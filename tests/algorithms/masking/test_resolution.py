"""Block means and interpolation: means are kept, linear functions come back."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.resolution import block_means, blocks, coarse_grid, interpolate
from qsmxt.geometry import Grid


def test_blocks_are_at_most_as_long_as_asked():
    assert blocks(Grid((9, 9, 9), (0.5, 1.0, 3.0)), 2.0) == (4, 2, 1)
    assert coarse_grid(Grid((9, 9, 9), (0.5, 1.0, 3.0)), (4, 2, 1)).shape == (3, 5, 9)


def test_block_means_with_incomplete_blocks():
    volume = np.random.default_rng(0).random((7, 5, 9)).astype(np.float32)
    means = block_means(volume, (2, 3, 4))
    assert means.shape == (4, 2, 3)
    assert means[3, 1, 2] == pytest.approx(volume[6:, 3:, 8:].mean(), rel=1e-6)
    assert means[0, 0, 1] == pytest.approx(volume[:2, :3, 4:8].mean(), rel=1e-6)


def test_a_linear_function_comes_back_between_the_block_centres():
    i, j, k = np.indices((12, 9, 8)).astype(np.float32)
    volume = 3 + 0.5 * i - j + 2 * k
    back = interpolate(block_means(volume, (4, 3, 2)), (4, 3, 2), volume.shape)
    np.testing.assert_allclose(back[2:10, 1:8, 1:7], volume[2:10, 1:8, 1:7], atol=1e-4)


def test_single_blocks_are_constant():
    back = interpolate(np.full((1, 1, 1), 2.5, np.float32), (5, 6, 7), (5, 6, 7))
    np.testing.assert_array_equal(back, 2.5)
