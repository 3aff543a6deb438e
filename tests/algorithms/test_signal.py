"""What the magnitude tells: noise level, head mask, combined magnitude."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from qsmxt.algorithms.signal import chi_squared_median, combine_magnitude, noise_level, signal_mask
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SHAPE = (48, 52, 44)
GRID = Grid(SHAPE, (1.5, 1.5, 1.5))


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy magnitude of a ball with a cavity (sigma 20, signal 1000), the ball, and the cavity."""
    rng = np.random.default_rng(7)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    ball = (x / 0.8) ** 2 + (y / 0.7) ** 2 + (z / 0.8) ** 2 < 1
    cavity = x**2 + (y - 0.2) ** 2 + z**2 < 0.03
    signal = np.where(ball & ~cavity, 1000.0, 0.0)
    noise = 20 * (rng.standard_normal((3, *SHAPE)) + 1j * rng.standard_normal((3, *SHAPE)))
    return np.abs(signal * np.array([1, 0.8, 0.6])[:, None, None, None] + noise).astype(np.float32), ball, cavity


def test_combination_is_the_root_sum_of_squares_and_ignores_nan():
    magnitude = np.random.default_rng(0).random((3, 5, 6, 7)).astype(np.float32)
    expected = np.sqrt((magnitude.astype(np.float64) ** 2).sum(axis=0))
    np.testing.assert_allclose(combine_magnitude(magnitude), expected, rtol=1e-6)
    magnitude[1, 2, 3, 4] = np.nan
    magnitude[0, 1, 1, 1] = np.inf
    assert combine_magnitude(magnitude)[2, 3, 4] == pytest.approx(
        np.hypot(magnitude[0, 2, 3, 4], magnitude[2, 2, 3, 4])
    )
    assert combine_magnitude(magnitude)[1, 1, 1] == pytest.approx(
        np.hypot(magnitude[1, 1, 1, 1], magnitude[2, 1, 1, 1])
    )


def test_background_noise_is_measured_within_two_percent(head):
    assert noise_level(head[0]) == pytest.approx(20, rel=0.02)


def test_noise_is_measured_in_the_signal_where_there_is_no_background(head):
    magnitude, ball, _ = head
    assert noise_level(magnitude * ball) == pytest.approx(20, rel=0.05)
    assert noise_level(magnitude[:, 18:30, 10:22, 16:28]) == pytest.approx(20, rel=0.1)


def test_noise_scales_with_the_magnitude(head):
    assert noise_level(head[0] * np.float32(1e-5)) == pytest.approx(1e-5 * noise_level(head[0]), rel=1e-5)


def test_head_mask_is_the_ball_with_its_cavity(head):
    magnitude, ball, cavity = head
    mask = signal_mask(magnitude, GRID)
    assert mask.dtype == bool
    assert mask[cavity].all()
    assert (mask & ball).sum() > 0.999 * ball.sum()
    assert mask.sum() < 1.05 * ball.sum()


@pytest.mark.parametrize("scale", [1e-6, 1e5])
def test_head_mask_does_not_depend_on_the_scale(head, scale):
    magnitude = head[0]
    np.testing.assert_array_equal(signal_mask(magnitude * np.float32(scale), GRID), signal_mask(magnitude, GRID))


def test_head_mask_does_not_depend_on_the_field_of_view(head):
    magnitude, ball, _ = head
    rng = np.random.default_rng(1)
    wide = [(20, 20)] * 3
    noise = 20 * (rng.standard_normal((1, 88, 92, 84)) + 1j * rng.standard_normal((1, 88, 92, 84)))
    large = np.abs(noise).astype(np.float32)
    large[0, 20:68, 20:72, 20:64] = magnitude[0]
    mask = signal_mask(large, Grid(large.shape[1:], (1.5, 1.5, 1.5)))
    truth = np.pad(ball, wide)
    assert (mask & truth).sum() > 0.999 * truth.sum()
    assert mask.sum() < 1.05 * truth.sum()


def test_a_single_slice_is_masked_in_plane(head):
    magnitude, ball, cavity = head
    mask = signal_mask(magnitude[:, :, :, 22:23], Grid((48, 52, 1), (1.5, 1.5, 3)))[..., 0]
    truth = ball[:, :, 22]
    assert mask[cavity[:, :, 22]].all()
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.97


def test_zero_and_misplaced_magnitudes_are_refused():
    with pytest.raises(InputError, match="expected positive values"):
        signal_mask(np.zeros((8, 8, 8), np.float32), Grid((8, 8, 8)))
    with pytest.raises(InputError, match="expected shape"):
        signal_mask(np.ones((8, 8, 8), np.float32), Grid((8, 8, 9)))
    with pytest.raises(InputError, match="dimensions"):
        combine_magnitude(np.ones((8, 8), np.float32))


@pytest.mark.parametrize("degrees", [1, 2, 7, 15, 16, 40])
def test_half_of_the_chi_squared_distribution_lies_below_its_median(degrees):
    assert special.gammainc(degrees / 2, chi_squared_median(degrees) / 2) == pytest.approx(0.5, rel=1e-14)
