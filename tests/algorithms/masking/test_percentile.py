"""Threshold at a percentile: the share of voxels that is left."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.percentile import PercentileParameters, percentile
from qsmxt.geometry import Grid


@pytest.mark.parametrize("percent", [0.0, 40.0, 75.0, 99.0])
def test_the_share_above_is_what_was_asked_for(percent):
    grid = Grid((10, 10, 10))
    image = np.random.default_rng(0).permutation(1000).reshape(grid.shape).astype(np.float32)
    mask = percentile(image, grid, PercentileParameters(percent))
    assert mask.sum() == pytest.approx(10 * (100 - percent), abs=1)
    assert image[mask].min() > image[~mask].max()


def test_nan_does_not_count():
    grid = Grid((10, 10, 2))
    image = np.arange(200, dtype=np.float32).reshape(grid.shape)
    image[:5] = np.nan
    assert percentile(image, grid, PercentileParameters(50.0)).sum() == 50
