"""Laplacian unwrapping: exact where its equation is, and congruent on demand."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.unwrapping.laplacian import LaplacianParameters, laplacian
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

TWO_PI = 2 * np.pi
SHAPE = (30, 26, 31)
GRID = Grid(SHAPE, (1.0, 1.5, 2.5))


def wrap(phase: np.ndarray) -> np.ndarray:
    """Phase in [-pi, pi)."""
    return ((phase + np.pi) % TWO_PI - np.pi).astype(np.float32)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Two echoes of a smooth phase, up to 25 rad."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    phase = 8 * np.exp(-3 * ((x - 0.2) ** 2 + y**2 + z**2)) + 5 * x * y - 4 * z
    return np.stack([phase, 2 * phase])


def test_smooth_phase_is_recovered_up_to_its_mean(truth):
    out = laplacian(wrap(truth), GRID)
    expected = truth - truth.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(out, expected, atol=2e-4)


def test_the_congruent_result_differs_from_the_input_by_whole_turns(truth):
    noisy = wrap(truth + 0.3 * np.random.default_rng(0).standard_normal(truth.shape))
    out = laplacian(noisy, GRID, LaplacianParameters(congruent=True))
    added = (out.astype(np.float64) - noisy) / TWO_PI
    np.testing.assert_allclose(added, np.rint(added), atol=2e-6)


def test_what_lies_outside_the_mask_does_not_matter(truth):
    rng = np.random.default_rng(0)
    mask = rng.random(SHAPE) > 0.1
    mask[:4] = False
    phase = wrap(truth)
    noise = np.where(mask, phase, rng.uniform(-3, 3, phase.shape)).astype(np.float32)
    noise[:, 0, 0, 0] = np.nan
    out = laplacian(phase, GRID, mask=mask)
    np.testing.assert_array_equal(laplacian(noise, GRID, mask=mask), out)
    assert not out[:, ~mask].any()


def test_one_slice_is_unwrapped_in_plane():
    x = np.arange(24.0)[None, :, None, None] * np.ones((1, 24, 20, 1))
    out = laplacian(wrap(2.5 * x), Grid((24, 20, 1)))
    np.testing.assert_allclose(out, 2.5 * (x - x.mean()), atol=2e-4)


def test_a_volume_without_echo_axis_is_refused(truth):
    with pytest.raises(InputError, match="echo, x, y, z"):
        laplacian(wrap(truth)[0], GRID)
