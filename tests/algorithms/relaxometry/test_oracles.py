"""Every fit of the decay against scipy or a plain sum, voxel by voxel, on noisy data."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from qsmxt.algorithms.relaxometry import arlo, loglinear, nonlinear, numart2star
from qsmxt.geometry import Grid

GRID = Grid((3, 4, 2))
TIMES = np.array([0.004, 0.009, 0.013, 0.02, 0.026])
SIGMA = 0.03


@pytest.fixture(scope="module")
def magnitude() -> np.ndarray:
    rng = np.random.default_rng(0)
    rate = rng.uniform(15, 60, GRID.shape)
    signal = np.exp(-rate * TIMES[:, None, None, None]) + SIGMA * rng.standard_normal((5, *GRID.shape))
    return np.abs(signal + 1j * SIGMA * rng.standard_normal(signal.shape)).astype(np.float32)


def rician_mean(a: np.ndarray, sigma: float) -> np.ndarray:
    """Mean of the Rice distribution; ``ive`` carries the factor exp(-u)."""
    u = a**2 / (4 * sigma**2)
    return sigma * np.sqrt(np.pi / 2) * ((1 + 2 * u) * scipy.special.ive(0, u) + 2 * u * scipy.special.ive(1, u))


def each(magnitude: np.ndarray, of) -> np.ndarray:
    """``of`` the five magnitudes of every voxel."""
    return np.apply_along_axis(of, 0, magnitude.astype(float))


@pytest.mark.parametrize("sigma", [0.0, SIGMA])
def test_nonlinear_is_the_least_squares_of_scipy(sigma, magnitude):
    def fit(m):
        def residual(p):
            a = p[0] * np.exp(-p[1] * TIMES)
            return (rician_mean(a, sigma) if sigma else a) - m

        return scipy.optimize.least_squares(residual, [1.0, 30.0], x_scale=[1, 30], xtol=1e-12, ftol=1e-12).x[1]

    settings = nonlinear.method.configure({"noise": sigma})
    np.testing.assert_allclose(nonlinear(magnitude, TIMES, GRID, settings)[0], each(magnitude, fit), rtol=2e-3)


@pytest.mark.parametrize("repetitions", [0, 2])
def test_loglinear_is_polyfit_with_the_weights_of_the_logarithm(repetitions, magnitude):
    def fit(m):
        amplitude = m
        for _ in range(1 + repetitions):
            slope, intercept = np.polyfit(TIMES, np.log(m), 1, w=amplitude)
            amplitude = np.exp(intercept + slope * TIMES)
        return -slope

    settings = loglinear.method.configure({"repetitions": repetitions})
    np.testing.assert_allclose(loglinear(magnitude, TIMES, GRID, settings)[0], each(magnitude, fit), rtol=1e-4)


def test_arlo_is_the_regression_on_integrals_of_parabolas(magnitude):
    def fit(m):
        across = along = 0.0
        for j in range(3):
            t, values = TIMES[j : j + 3], m[j : j + 3]
            area = [np.polyval(np.polyint(np.polyfit(t, unit, 2)), t[[0, 2]]) @ [-1, 1] for unit in np.eye(3)]
            s, d = float(np.dot(area, values)), values[0] - values[2]
            z = s + area[2] * d
            across, along = across + z * d, along + z * s
        return across / along

    np.testing.assert_allclose(arlo(magnitude, TIMES, GRID)[0], each(magnitude, fit), rtol=1e-4)


def test_numart2star_is_the_trapezoidal_rule(magnitude):
    def fit(m):
        return (m[0] - m[-1]) / np.trapezoid(m, TIMES)

    np.testing.assert_allclose(numart2star(magnitude, TIMES, GRID)[0], each(magnitude, fit), rtol=1e-4)
