"""MCPC-3D-S with the local polynomials fitted by dense least squares about single voxels."""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.offset.mcpc3ds import mcpc3ds
from qsmxt.algorithms.offset.smoothing import smooth_phase
from qsmxt.constants import rad_per_ppm
from qsmxt.geometry import Grid

GRID = Grid((20, 18, 16), (2.0, 2.0, 2.5))
WIDTH = 8.0


def polynomial_at(values: np.ndarray, weight: np.ndarray, here: np.ndarray) -> float:
    """Constant of the polynomial of second order that fits best about a voxel, weighted by distance and weight."""
    position = (np.argwhere(weight > 0) - here) * np.array(GRID.voxel_size) / WIDTH
    x, y, z = position.T
    terms = np.stack([np.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z], axis=1)
    root = np.sqrt(weight[weight > 0] * np.exp(-(position**2).sum(1) / 2))
    return float(np.linalg.lstsq(root[:, None] * terms, root * values[weight > 0], rcond=None)[0][0])


def smoothed(values: np.ndarray, weight: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The fit at ``places``, repeated once on what it leaves."""
    everywhere = np.zeros(values.shape)
    for here in np.argwhere(weight > 0):
        everywhere[tuple(here)] = polynomial_at(values, weight, here)
    left = values - everywhere
    return np.array([everywhere[tuple(p)] + polynomial_at(left, weight, p) for p in places])


def _head() -> tuple[np.ndarray, np.ndarray]:
    """Mask, and an offset that no polynomial of second order describes."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID.shape], indexing="ij")
    return x * x + y * y + z * z < 0.75, 0.4 + 0.8 * x - 0.5 * y * z + 0.3 * np.sin(3 * x) * y


def test_smoothing_is_the_dense_fit_about_every_voxel():
    mask, offset = _head()
    rng = np.random.default_rng(0)
    weight = np.where(mask, rng.uniform(0.5, 1.5, GRID.shape), 0)
    noisy = offset + 0.3 * rng.standard_normal(GRID.shape)
    places = rng.choice(np.argwhere(mask), 60, replace=False)
    expected = smoothed(noisy, weight, places)
    found = smooth_phase(noisy.astype(np.float32), weight.astype(np.float32), GRID, WIDTH)[tuple(places.T)]
    change = np.std(expected - noisy[tuple(places.T)])
    assert np.std(found - expected) < 0.05 * change  # blocks of the coarse grid, and cubics between its nodes


def test_mcpc3ds_is_the_smoothed_difference_of_the_echoes():
    mask, offset = _head()
    x, y, _ = np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID.shape], indexing="ij")
    rng, times = np.random.default_rng(1), np.array([0.004, 0.010])
    field = 0.1 * x * y
    signal = [np.exp(1j * (offset + rad_per_ppm(3.0, t) * field)) for t in times]
    signal = mask * np.array(signal) + 0.08 * (rng.standard_normal((2, *GRID.shape, 2)) @ [1, 1j])
    phase, magnitude = np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)
    free, found = mcpc3ds(phase, magnitude, times, GRID, mask=mask)
    evolved = np.angle(signal[1] * np.conj(signal[0]))
    raw = np.where(mask, np.angle(signal[0] * np.exp(-1j * evolved * times[0] / (times[1] - times[0]))), 0)
    places = rng.choice(np.argwhere(mask), 40, replace=False)
    expected = smoothed(raw, magnitude[0].astype(float) ** 2 * mask, places)
    assert np.std(found[tuple(places.T)] - expected) < 0.1 * np.std(expected - raw[tuple(places.T)])
    np.testing.assert_allclose(np.exp(1j * free), np.exp(1j * (phase - found)), atol=1e-5)
