"""N4: a known bias becomes smaller, the mean stays."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.external.n4 import n4
from qsmxt.geometry import Grid


def test_a_smooth_bias_becomes_smaller():
    pytest.importorskip("ants")
    grid = Grid((24, 24, 20), (5.0, 5.0, 6.0))
    x, y, z = (np.linspace(-1, 1, n) for n in grid.shape)
    distance = x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2
    mask = distance < 0.8
    rng = np.random.default_rng(0)
    tissue = mask * (100 + 3 * rng.normal(size=grid.shape))
    image = (tissue * (1 + 0.4 * x[:, None, None])).astype(np.float32)
    corrected = n4(image, mask, grid, shrink=2)

    def spread(volume: np.ndarray) -> float:
        return float(volume[mask].std() / volume[mask].mean())

    assert spread(image) > 0.15 and spread(corrected) < 0.07
    assert corrected[mask].mean() == pytest.approx(image[mask].mean(), rel=1e-4)
