"""Mean over echoes: weights, missing signal, one echo."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.merging.echo_mean import EchoMeanParameters, echo_mean
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

GRID = Grid((5, 4, 3))
MASK = np.ones(GRID.shape, dtype=bool)


def _echoes(*values: float) -> np.ndarray:
    return np.stack([np.full(GRID.shape, v, dtype=np.float32) for v in values])


def test_without_weights_it_is_the_plain_mean():
    np.testing.assert_allclose(echo_mean(_echoes(0.1, 0.2, 0.6), MASK, GRID), 0.3, rtol=1e-6)


def test_weights_are_those_of_least_variance():
    found = echo_mean(_echoes(0.1, 0.4), MASK, GRID, magnitude=_echoes(2, 1), echo_times=np.array([0.01, 0.03]))
    np.testing.assert_allclose(found, (0.1 * 4 + 0.4 * 9) / 13, rtol=1e-6)


def test_uniform_weighting_ignores_the_magnitude():
    found = echo_mean(
        _echoes(0.1, 0.4), MASK, GRID, EchoMeanParameters("uniform"),
        magnitude=_echoes(2, 1), echo_times=np.array([0.01, 0.03]),
    )  # fmt: skip
    np.testing.assert_allclose(found, 0.25, rtol=1e-6)


def test_voxels_without_signal_take_the_plain_mean_and_the_outside_nothing():
    magnitude = _echoes(1, 1)
    magnitude[:, 0, 0, 0] = 0
    mask = MASK.copy()
    mask[4] = False
    found = echo_mean(_echoes(0.1, 0.4), mask, GRID, magnitude=magnitude, echo_times=np.array([0.01, 0.02]))
    assert found[0, 0, 0] == pytest.approx(0.25)
    assert not found[4].any()


def test_one_echo_is_itself():
    chi = np.random.default_rng(0).standard_normal((1, *GRID.shape)).astype(np.float32)
    np.testing.assert_allclose(echo_mean(chi, MASK, GRID), chi[0], rtol=1e-6)


def test_echo_times_must_match():
    with pytest.raises(InputError, match="echo_times"):
        echo_mean(_echoes(0.1, 0.4), MASK, GRID, magnitude=_echoes(2, 1), echo_times=np.array([0.01]))
