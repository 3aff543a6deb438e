"""Fits of the transverse decay: exact values, accuracy in noise, uncertainty, field gradients, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import parallel
from qsmxt.algorithms.relaxometry import arlo, loglinear, nonlinear, numart2star
from qsmxt.algorithms.relaxometry.decay import LONGEST_T2STAR
from qsmxt.constants import hz_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

METHODS = (arlo, loglinear, nonlinear, numart2star)
GRID = Grid((12, 11, 13))
EQUAL = 0.006 * np.arange(1, 6)
UNEQUAL = np.array([0.003, 0.008, 0.014, 0.019, 0.031])


def _decay(rate, times, grid=GRID, s0=1000.0):
    return (s0 * np.exp(-rate * np.asarray(times)))[:, None, None, None] * np.ones((1, *grid.shape))


def _rician(signal, noise, seed):
    rng = np.random.default_rng(seed)
    complex_ = signal + noise * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    return np.abs(complex_).astype(np.float32)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (loglinear, {20: 20, 50: 50, 100: 100, 200: 200}),
        (nonlinear, {20: 20, 50: 50, 100: 100, 200: 200}),
        (arlo, {50: 49.998, 100: 99.93, 200: 198.06}),
        (numart2star, {20: 19.976, 50: 49.63, 100: 97.10, 200: 179.0}),
    ],
)
def test_rates_without_noise(function, expected):
    for rate, value in expected.items():
        r2star, t2star, s0, noise, _ = function(_decay(rate, EQUAL), EQUAL, GRID)
        tolerance = 1e-4 if function in (loglinear, nonlinear) else 0.02
        np.testing.assert_allclose(r2star, value, atol=tolerance)
        np.testing.assert_allclose(t2star, 1 / value, rtol=1e-3)
        if function in (loglinear, nonlinear):
            np.testing.assert_allclose(s0, 1000, rtol=1e-5)
            assert noise.max() < 1e-3


@pytest.mark.parametrize("function", [loglinear, nonlinear])
def test_unequal_spacing_is_exact_for_the_fits(function):
    np.testing.assert_allclose(function(_decay(70, UNEQUAL), UNEQUAL, GRID)[0], 70, atol=1e-4)


@pytest.mark.parametrize(("function", "worst"), [(arlo, 0.004), (numart2star, 0.04)])
def test_unequal_spacing_costs_the_integrals_no_more_than_their_rule(function, worst):
    for rate in (20, 50, 100):
        found = function(_decay(rate, UNEQUAL), UNEQUAL, GRID)[0]
        assert abs(found[0, 0, 0] / rate - 1) < worst


@pytest.mark.parametrize("function", [arlo, loglinear, nonlinear])
@pytest.mark.parametrize("rate", [10, 30, 100])
def test_rate_within_two_percent_at_snr_50(function, rate):
    grid = Grid((36, 36, 36))
    times = 0.004 + 0.005 * np.arange(6)
    magnitude = _rician(_decay(rate, times, grid, 50.0), 1.0, rate)
    r2star, t2star, s0, noise, t2star_noise = function(magnitude, times, grid)
    assert abs(r2star.mean(dtype=np.float64) / rate - 1) < 0.02
    assert abs(s0.mean(dtype=np.float64) / 50 - 1) < 0.005
    assert abs(np.median(noise) / r2star.std(dtype=np.float64) - 1) < 0.1
    spread = np.diff(np.percentile(t2star, [15.865, 84.135]))[0] / 2
    assert abs(np.median(t2star_noise) / spread - 1) < 0.1


def test_rician_floor_is_not_taken_for_slow_decay():
    grid = Grid((28, 28, 28))
    times = 0.005 * np.arange(1, 11)
    magnitude = _rician(_decay(80, times, grid, 20.0), 1.0, 3)
    without = nonlinear(magnitude, times, grid, nonlinear.method.configure({"noise": 0.0}))[0].mean()
    given = nonlinear(magnitude, times, grid, nonlinear.method.configure({"noise": 1.0}))[0].mean()
    assert without < 0.95 * 80 and abs(given / 80 - 1) < 0.02


@pytest.mark.parametrize("function", METHODS)
def test_field_gradient_is_corrected(function):
    """A gradient along z within voxels of 3 mm, signal averaged over each voxel, is what F describes."""
    grid = Grid((6, 6, 8), (1.0, 1.0, 3.0))
    gradient, strength, rate, times = 0.04, 3.0, 30.0, 0.004 * np.arange(1, 9)  # ppm/mm
    z = (np.arange(8) * 3.0)[None, None, :] * np.ones(grid.shape)
    fine = (np.arange(200) + 0.5) / 200 - 0.5
    turns = np.exp(2j * np.pi * hz_per_ppm(strength) * gradient * 3.0 * np.outer(times, fine))
    magnitude = _decay(rate, times, grid) * np.abs(turns.mean(axis=1))[:, None, None, None]
    field = (gradient * z).astype(np.float32)
    plain = function(magnitude, times, grid)[0]
    for axes in ("slice", "all"):
        settings = function.method.configure({"field_gradient": axes})
        found = function(magnitude, times, grid, settings, total_field=field, field_strength=strength)[0]
        assert abs(found.mean() / rate - 1) < 0.01
    assert plain.mean() > 1.1 * rate


def test_field_gradient_ignores_the_field_outside_the_mask():
    grid = Grid((6, 6, 8), (1.0, 1.0, 3.0))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[1:5, 1:5, 2:6] = True
    field = np.where(mask, 0.0, 50.0).astype(np.float32)
    settings = loglinear.method.configure({"field_gradient": "all"})
    found = loglinear(_decay(40, EQUAL, grid), EQUAL, grid, settings, mask=mask, total_field=field, field_strength=7.0)
    np.testing.assert_allclose(found[0][mask], 40, atol=1e-3)
    assert not any(volume[~mask].any() for volume in found)


@pytest.mark.parametrize("function", [loglinear, nonlinear, numart2star])
def test_two_echoes_are_enough(function):
    found = function(_decay(50, EQUAL[:2]), EQUAL[:2], GRID)[0]
    expected = 50 if function is not numart2star else 49.63
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("function", METHODS)
def test_voxels_without_signal_or_decay(function):
    magnitude = _decay(50, EQUAL)
    magnitude[:, 0] = 0
    magnitude[:, 1] = 1000
    magnitude[:, 2] = 1000 * np.arange(1, 6)[:, None, None]
    magnitude[2, 3, 0, 0] = np.nan
    r2star, t2star, s0, noise, _ = function(magnitude, EQUAL, GRID)
    assert not any(v[0].any() for v in (r2star, t2star, s0, noise))
    np.testing.assert_allclose(r2star[1:3], 0, atol=1e-4)
    np.testing.assert_allclose(t2star[1:3], LONGEST_T2STAR)
    assert r2star[3, 0, 0] == 0 and all(np.isfinite(v).all() for v in (r2star, t2star, s0, noise))


@pytest.mark.parametrize("function", METHODS)
def test_bad_input_is_named(function):
    magnitude = _decay(50, EQUAL)
    with pytest.raises(InputError, match=r"echo times.*at least"):
        function(magnitude[:1], EQUAL[:1], GRID)
    with pytest.raises(InputError, match="ascending"):
        function(magnitude[:3], [0.01, 0.01, 0.02], GRID)
    with pytest.raises(InputError, match="milliseconds"):
        function(magnitude, EQUAL * 1000, GRID)
    with pytest.raises(InputError, match="empty mask"):
        function(magnitude, EQUAL, GRID, mask=np.zeros(GRID.shape, dtype=bool))
    with pytest.raises(InputError, match=r"total_field.*field_gradient"):
        function(magnitude, EQUAL, GRID, function.method.configure({"field_gradient": "all"}))
    with pytest.raises(InputError, match="magnitude"):
        function(magnitude[:, 1:], EQUAL, GRID)


@pytest.mark.parametrize("function", METHODS)
def test_same_bytes_for_any_number_of_threads_and_input_untouched(function):
    magnitude = _rician(_decay(40, UNEQUAL), 20.0, 5)
    before = magnitude.tobytes()
    results = []
    try:
        for threads in (1, 2, 8):
            parallel.set_thread_count(threads)
            results.append(b"".join(v.tobytes() for v in function(magnitude, UNEQUAL, GRID)))
    finally:
        parallel.set_thread_count(None)
    assert results[0] == results[1] == results[2] and magnitude.tobytes() == before
