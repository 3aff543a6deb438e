"""Field fits: exact without noise, the stated noise with it, quality, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import parallel
from qsmxt.algorithms.field.joint_fit import JointFitParameters, joint_fit
from qsmxt.algorithms.field.linear_fit import linear_fit
from qsmxt.algorithms.field.nonlinear_fit import NonlinearFitParameters, nonlinear_fit
from qsmxt.algorithms.field.weighted_fit import WeightedFitParameters, weighted_fit
from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SHAPE = (30, 28, 26)
GRID = Grid(SHAPE)
TIMES = np.array([0.005, 0.011, 0.017, 0.023])
B0 = 3.0
REMOVED = NonlinearFitParameters(offset="removed")
WEIGHTS = ("phase_variance", "phase_snr", "magnitude", "echo_time", "uniform")


def phases(field: np.ndarray, times: np.ndarray = TIMES, offset: float | np.ndarray = 0.0) -> np.ndarray:
    """True phase of every echo, rad, float64."""
    return np.stack([offset + field * rad_per_ppm(B0, t) for t in times])


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """A field of 1.2 ppm range with slopes of up to 0.06 ppm a voxel."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    return 0.25 * x * y - 0.2 * z + 0.4 * np.exp(-4 * (x**2 + y**2 + (z - 0.4) ** 2))


@pytest.fixture(scope="module")
def magnitude() -> np.ndarray:
    """Decaying magnitude with contrast."""
    x = np.linspace(0.5, 1.5, SHAPE[0])[:, None, None] * np.ones(SHAPE)
    return np.stack([x * np.exp(-(10 + 30 * x) * t) for t in TIMES]).astype(np.float32)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_weighted_mean_is_exact_without_noise(truth, magnitude, weights):
    field, _, quality = weighted_fit(phases(truth), magnitude, TIMES, B0, GRID, WeightedFitParameters(weights))
    np.testing.assert_allclose(field, truth, atol=1e-6)
    assert quality.min() > 0.9


@pytest.mark.parametrize("offset", [0.0, 1.3])
def test_the_fits_with_offset_are_exact_without_noise(truth, magnitude, offset):
    for fit in (linear_fit, nonlinear_fit):
        field = fit(phases(truth, offset=offset), magnitude, TIMES, B0, GRID)[0]
        np.testing.assert_allclose(field, truth, atol=1e-6)


def test_the_nonlinear_fit_without_offset_is_exact_without_noise(truth, magnitude):
    field = nonlinear_fit(phases(truth), magnitude, TIMES, B0, GRID, REMOVED)[0]
    np.testing.assert_allclose(field, truth, atol=1e-6)


@pytest.mark.parametrize("times", [TIMES, TIMES[:2], TIMES[:1], np.array([0.003, 0.008, 0.02])], ids=len)
def test_one_two_and_unevenly_spaced_echoes(truth, times):
    ones = np.ones((len(times), *SHAPE), np.float32)
    np.testing.assert_allclose(weighted_fit(phases(truth, times), ones, times, B0, GRID)[0], truth, atol=1e-6)
    if len(times) > 1:
        found = linear_fit(phases(truth, times, 0.4), ones, times, B0, GRID)[0]
        np.testing.assert_allclose(found, truth, atol=1e-6)


def test_wraps_of_late_echoes_do_not_move_the_nonlinear_fit(truth, magnitude):
    phase = phases(truth, offset=0.3)
    wrong = np.random.default_rng(0).random(SHAPE) < 0.2
    phase[3] += np.where(wrong, 2 * np.pi, 0)
    start = linear_fit(phase, magnitude, TIMES, B0, GRID)[0]
    assert np.abs(start - truth)[wrong].min() > 0.1
    found = nonlinear_fit(phase, magnitude, TIMES, B0, GRID, NonlinearFitParameters(iterations=30))[0]
    good = np.abs(found - truth) < 1e-4
    assert good[~wrong].all()
    assert nonlinear_fit(phases(truth), magnitude, TIMES, B0, GRID, REMOVED)[2][wrong].min() > 0.9


def monte_carlo(fit, times: np.ndarray, offset: float = 0.0, sigma: float = 0.02) -> tuple[float, float, float]:
    """Standard deviation of the error, stated by the fit, and by the formula, for a uniform field."""
    shape = (48, 48, 48)
    rng = np.random.default_rng(8)
    decay = np.exp(-25 * times)
    truth = phases(np.full(shape, 0.01), times, offset)
    noise = sigma * (rng.standard_normal(truth.shape) + 1j * rng.standard_normal(truth.shape))
    signal = decay[:, None, None, None] * np.exp(1j * truth) + noise
    if len(times) == 1:
        signal[:, :, :, :8] = noise[:, :, :, :8]
    mask = np.zeros(shape, bool)
    mask[4:-4, 4:-4, 16:-4] = True
    error, stated, quality = fit(np.angle(signal), np.abs(signal), times, mask, Grid(shape))
    moments = [(decay**2 * times**k).sum() for k in range(3)]
    precision = moments[2] if offset == 0 else moments[2] - moments[1] ** 2 / moments[0]
    formula = sigma / np.sqrt(precision) / rad_per_ppm(B0, 1.0)
    assert quality[mask].min() > 0.9
    return float((error - 0.01)[mask].std()), float(stated[mask].mean()), float(formula)


CASES = {
    "weighted": (lambda p, m, t, k, g: weighted_fit(p, m, t, B0, g, mask=k), TIMES, 0.0),
    "weighted, one echo": (lambda p, m, t, k, g: weighted_fit(p, m, t, B0, g, mask=k), TIMES[1:2], 0.0),
    "nonlinear": (lambda p, m, t, k, g: nonlinear_fit(p, m, t, B0, g, REMOVED, mask=k), TIMES, 0.0),
    "linear with offset": (lambda p, m, t, k, g: linear_fit(p, m, t, B0, g, mask=k), TIMES, 0.4),
    "nonlinear with offset": (lambda p, m, t, k, g: nonlinear_fit(p, m, t, B0, g, mask=k), TIMES[:3], 0.4),
}


@pytest.mark.parametrize("case", CASES)
def test_the_stated_noise_is_that_of_monte_carlo_and_of_theory(case):
    measured, stated, formula = monte_carlo(*CASES[case])
    assert stated == pytest.approx(measured, rel=0.1)
    assert stated == pytest.approx(formula, rel=0.1)


def test_other_weights_cost_noise_and_say_so():
    stated = {}
    for weights in WEIGHTS:
        parameters = WeightedFitParameters(weights)
        measured, stated[weights], _ = monte_carlo(
            lambda p, m, t, k, g, q=parameters: weighted_fit(p, m, t, B0, g, q, mask=k), TIMES
        )
        assert stated[weights] == pytest.approx(measured, rel=0.1)
    assert min(stated, key=stated.__getitem__) == "phase_variance"
    assert stated["uniform"] > 1.2 * stated["phase_variance"]


def test_a_removed_offset_halves_the_noise():
    free = monte_carlo(*CASES["linear with offset"])[0]
    known = monte_carlo(*CASES["nonlinear"])[0]
    assert known < 0.55 * free


def test_quality_falls_with_disagreement_steep_fields_and_returning_signal(truth, magnitude):
    phase, strength = phases(truth), magnitude.copy()
    phase[2, 5, 5, 5] += 2.5
    strength[0, 20, 20, 20] *= 0.05
    phase[:, 12:14] += np.array([2.0, 5.0])[:, None, None] * (TIMES / TIMES[0])[:, None, None, None]
    quality = weighted_fit(phase, strength, TIMES, B0, GRID)[2]
    assert quality[5, 5, 5] < 0.9
    assert quality[20, 20, 20] < 0.6
    assert quality[12, 8, 8] < 0.95 * quality[9, 8, 8]
    assert quality[8, 8, 8] > 0.95


def test_outside_the_mask_and_at_nan_everything_is_zero(truth, magnitude):
    mask = np.random.default_rng(0).random(SHAPE) > 0.5
    phase = phases(truth).astype(np.float32)
    phase[1, 3, 3, 3] = np.nan
    strength = magnitude.copy()
    strength[2, 4, 4, 4] = np.inf
    mask[3, 3, 3] = mask[4, 4, 4] = True
    for fit in (weighted_fit, linear_fit, nonlinear_fit):
        for volume in fit(phase, strength, TIMES, B0, GRID, mask=mask):
            assert not volume[~mask].any()
            assert volume[3, 3, 3] == volume[4, 4, 4] == 0
            assert np.isfinite(volume).all()


def test_a_voxel_without_signal_has_the_noise_of_a_random_phase(truth, magnitude):
    strength = magnitude.copy()
    strength[:, 7, 7, 7] = 0
    field, noise, _ = weighted_fit(phases(truth), strength, TIMES, B0, GRID)
    assert np.isfinite(field).all()
    assert noise[7, 7, 7] == pytest.approx(np.pi / np.sqrt(3) / rad_per_ppm(B0, TIMES[0]), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 40, 40), (37, 1, 31), (31, 29, 1)])
def test_volumes_one_voxel_thick(shape):
    field = 0.01 * np.arange(np.prod(shape)).reshape(shape) % 0.7
    ones = np.ones((4, *shape), np.float32)
    for fit in (weighted_fit, linear_fit, nonlinear_fit):
        np.testing.assert_allclose(fit(phases(field), ones, TIMES, B0, Grid(shape))[0], field, atol=1e-6)


def test_bad_input_is_refused(truth, magnitude):
    phase = phases(truth)
    for fit in (linear_fit, nonlinear_fit):
        with pytest.raises(InputError, match="at least 2 echoes, found 1"):
            fit(phase[:1], magnitude[:1], TIMES[:1], B0, GRID)
    for fit in (weighted_fit, linear_fit, nonlinear_fit, joint_fit):
        with pytest.raises(InputError, match="strictly ascending"):
            fit(phase[:2], magnitude[:2], np.array([0.01, 0.01]), B0, GRID)
        with pytest.raises(InputError, match="empty mask"):
            fit(phase, magnitude, TIMES, B0, GRID, mask=np.zeros(SHAPE, bool))
        with pytest.raises(InputError, match="field strength"):
            fit(phase, magnitude, TIMES, 0.0, GRID)
        with pytest.raises(InputError, match="expected shape"):
            fit(phase, magnitude[:, :-1], TIMES, B0, GRID)
    with pytest.raises(InputError, match="at least 3 echoes"):
        joint_fit(phase[:2], magnitude[:2], TIMES[:2], B0, GRID, JointFitParameters(bipolar="on"))


def test_fits_do_not_depend_on_the_number_of_threads(truth, magnitude):
    phase = phases(truth, offset=0.2)
    results = []
    for threads in (1, 3):
        parallel.set_thread_count(threads)
        results.append(
            [*nonlinear_fit(phase, magnitude, TIMES, B0, GRID), *joint_fit(phase, magnitude, TIMES, B0, GRID)]
        )
    parallel.set_thread_count(None)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
