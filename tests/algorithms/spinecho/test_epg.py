"""R2 from spin echoes: closed forms of the train, and rates with imperfect refocusing and noise."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.spinecho import epg
from qsmxt.algorithms.spinecho.epg import R1, trains
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SPACING, COUNT = 0.01, 10
TIMES = SPACING * np.arange(1, COUNT + 1)
GRID = Grid((12, 13, 14))


def test_perfect_refocusing_is_an_exponential():
    found = trains(np.array([5.0, 40.0]), np.array([np.pi]), SPACING, COUNT)
    np.testing.assert_allclose(found[:, 0], np.exp(-np.outer([5.0, 40.0], TIMES)), rtol=1e-12)


def test_first_two_echoes_of_imperfect_refocusing():
    """Without relaxation the first is sin^2(a/2); the stimulated echo adds sin^2(a)/2 to sin^4(a/2) in the second."""
    angle = np.radians(120.0)
    found = trains(np.array([1e-9]), np.array([angle]), 1e-9, 2)[0, 0]
    second = np.sin(angle / 2) ** 4 + np.sin(angle) ** 2 / 2
    np.testing.assert_allclose(found, [np.sin(angle / 2) ** 2, second], rtol=1e-6)
    assert R1 == 1.0


@pytest.mark.parametrize("angle", [180.0, 150.0, 125.0])
@pytest.mark.parametrize("rate", [8.0, 15.0, 40.0])
def test_rate_is_found_whatever_the_refocusing(rate, angle):
    rng = np.random.default_rng(int(rate + angle))
    train = trains(np.array([rate]), np.radians([angle]), SPACING, COUNT)[0, 0]
    signal = 100 * train[:, None, None, None] * np.ones((1, *GRID.shape))
    assert abs(epg(signal, TIMES, GRID).mean() / rate - 1) < 0.01
    noisy = np.abs(signal + rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    assert abs(epg(noisy, TIMES, GRID).mean() / rate - 1) < 0.03


def test_mask_and_voxels_without_signal():
    signal = np.exp(-20 * TIMES)[:, None, None, None] * np.ones((1, *GRID.shape))
    signal[:, 0] = 0
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[:6] = True
    found = epg(signal, TIMES, GRID, mask=mask)
    assert not found[0].any() and not found[6:].any()
    np.testing.assert_allclose(found[1:6], 20, rtol=0.005)


def test_uneven_spacing_is_refused():
    with pytest.raises(InputError, match="multiples of one spacing"):
        epg(np.ones((3, *GRID.shape)), np.array([0.01, 0.02, 0.05]), GRID)
