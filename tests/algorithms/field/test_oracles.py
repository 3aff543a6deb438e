"""Field fits against numpy and scipy, voxel by voxel, on noisy data."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from qsmxt.algorithms.field.joint_fit import joint_fit
from qsmxt.algorithms.field.linear_fit import linear_fit
from qsmxt.algorithms.field.nonlinear_fit import NonlinearFitParameters, nonlinear_fit
from qsmxt.algorithms.field.weighted_fit import WeightedFitParameters, weighted_fit
from qsmxt.constants import rad_per_ppm
from qsmxt.geometry import Grid
from qsmxt.phantom.example import phantom

GRID = Grid((4, 3, 5))
TIMES = np.array([0.005, 0.011, 0.017, 0.023])
B0 = 3.0
UNIT = rad_per_ppm(B0, 1.0)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """True phase with noise, and magnitude."""
    rng = np.random.default_rng(0)
    field = rng.uniform(-0.03, 0.03, GRID.shape)
    magnitude = rng.uniform(0.5, 2, GRID.shape) * np.exp(-30 * TIMES)[:, None, None, None]
    phase = UNIT * field * TIMES[:, None, None, None] + 0.1 * rng.standard_normal(magnitude.shape) / magnitude
    return phase.astype(np.float32), magnitude.astype(np.float32)


WEIGHTS = {
    "phase_variance": lambda m: m**2 * TIMES**2,
    "phase_snr": lambda m: m * TIMES,
    "magnitude": lambda m: m,
    "echo_time": lambda m: TIMES,
    "uniform": lambda m: np.ones(4),
}


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weighted_fit_is_the_average_over_the_echoes(weights, data):
    phase, magnitude = data
    found = weighted_fit(phase, magnitude, TIMES, B0, GRID, WeightedFitParameters(weights))[0]
    for v in np.ndindex(*GRID.shape):
        each = phase[(slice(None), *v)] / (UNIT * TIMES)
        expected = np.average(each, weights=WEIGHTS[weights](magnitude[(slice(None), *v)]))
        assert found[v] == pytest.approx(expected, abs=2e-6)


def test_linear_fit_is_polyfit_with_the_magnitude_as_weight(data):
    phase, magnitude = data
    found = linear_fit(phase, magnitude, TIMES, B0, GRID)[0]
    for v in np.ndindex(*GRID.shape):
        slope = np.polyfit(TIMES, phase[(slice(None), *v)], 1, w=magnitude[(slice(None), *v)])[0]
        assert found[v] == pytest.approx(slope / UNIT, abs=5e-6)


@pytest.mark.parametrize("offset", ["fitted", "removed"])
def test_nonlinear_fit_is_the_complex_least_squares_of_scipy(offset, data):
    phase, magnitude = data
    settings = NonlinearFitParameters(offset=offset, iterations=50)
    found = nonlinear_fit(phase, magnitude, TIMES, B0, GRID, settings)[0]
    for v in np.ndindex(*GRID.shape):
        m, p = (a[(slice(None), *v)].astype(float) for a in (magnitude, phase))

        def residual(q, m=m, p=p):
            start = q[1] if offset == "fitted" else 0.0
            left = m * (np.exp(1j * p) - np.exp(1j * (start + q[0] * UNIT * TIMES)))
            return np.concatenate([left.real, left.imag])

        start = (
            np.polyfit(TIMES, p, 1, w=m) if offset == "fitted" else [np.average(p / TIMES, weights=(m * TIMES) ** 2)]
        )
        start = np.append(start[0] / UNIT, start[1:])
        best = scipy.optimize.least_squares(residual, start, xtol=1e-12, ftol=1e-12, x_scale=[0.01, 1][: len(start)])
        assert found[v] == pytest.approx(best.x[0], abs=2e-5)


def test_joint_fit_is_the_least_squares_of_scipy_with_the_true_offset():
    """The smooth offset that it finds costs a small part of the noise."""
    head = phantom()
    field, noise, quality = joint_fit(
        head.wrapped_phase, head.magnitude, head.echo_times, head.field_strength, head.grid, mask=head.mask
    )
    places = np.random.default_rng(0).choice(np.argwhere(head.eroded_mask & (quality > 0.9)), 150, replace=False)
    found, expected = [], []
    for v in map(tuple, places):
        signal = head.magnitude[(slice(None), *v)] * np.exp(1j * head.wrapped_phase[(slice(None), *v)])

        def residual(f, v=v, signal=signal):
            phase = head.phase_offset[v] + rad_per_ppm(head.field_strength, 1.0) * f[0] * head.echo_times
            left = signal - np.abs(signal) * np.exp(1j * phase)
            return np.concatenate([left.real, left.imag])

        expected.append(scipy.optimize.least_squares(residual, [float(head.total_field[v])], x_scale=0.01).x[0])
        found.append(float(field[v]))
    assert np.std(np.subtract(found, expected)) < 0.3 * np.median(noise[head.mask])
