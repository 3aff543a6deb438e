"""Robust signal mask: the object, whatever its share of the field of view, cavities filled."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.plausibility import dice
from qsmxt.algorithms.masking.robust import robust
from qsmxt.geometry import Grid


@pytest.mark.parametrize("radius", [9, 12, 17])
def test_a_noisy_ball_with_a_cavity(radius):
    grid = Grid((40, 40, 40), (2.0, 2.0, 2.0))
    x = np.arange(40) - 19.5
    distance = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2)
    ball = distance <= radius
    rng = np.random.default_rng(0)
    noise = 0.05 * (rng.normal(size=grid.shape) + 1j * rng.normal(size=grid.shape))
    image = np.abs((ball & (distance > 2)) + noise).astype(np.float32)
    mask = robust(1000 * image, grid)
    assert dice(mask, ball) > 0.95
    assert mask[distance < 2].all()
    np.testing.assert_array_equal(mask, robust(image, grid))
