"""Erosion by signal-to-noise ratio: weak borders go to a depth, weak inclusions stay."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.snr import SNRParameters, snr
from qsmxt.geometry import Grid


@pytest.mark.parametrize(("depth", "left"), [(3.0, 6), (10.0, 0)])
def test_a_weak_side_is_removed_to_a_depth(depth, left):
    grid = Grid((40, 40, 40))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[8:32, 8:32, 8:32] = True
    signal = np.where(mask, 1.0, 0.0)
    signal[8:17] *= 0.05  # nine layers of SNR 5
    signal[25, 20, 20] = 0.05
    rng = np.random.default_rng(0)
    noise = 0.01 * (rng.normal(size=grid.shape) + 1j * rng.normal(size=grid.shape))
    kept = snr(mask, np.abs(signal + noise).astype(np.float32), grid, SNRParameters(ratio=15.0, depth=depth))
    assert kept[:, 20, 20].sum() == 15 + left
    assert kept[25, 20, 20]
    assert (kept <= mask).all()


def test_a_strong_border_stays():
    grid = Grid((24, 24, 24))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[4:20, 4:20, 4:20] = True
    noise = np.abs(np.random.default_rng(0).normal(size=(2, *grid.shape)))
    magnitude = (100 * mask + noise).astype(np.float32)
    np.testing.assert_array_equal(snr(mask, magnitude, grid), mask)
