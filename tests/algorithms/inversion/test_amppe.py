"""Wavelets and noise of the parameter-free method."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.engine import HOST
from qsmxt.algorithms.inversion.amppe import _analysis, _Noise, _synthesis, amppe


def test_the_wavelet_transform_is_orthonormal():
    x = np.random.default_rng(0).standard_normal((16, 8, 24)).astype(np.float32)
    means, details = _analysis(np, x, 3)
    energy = np.sum(means.astype(np.float64) ** 2) + sum(np.sum(b.astype(np.float64) ** 2) for d in details for b in d)
    assert energy == pytest.approx(np.sum(x.astype(np.float64) ** 2), rel=1e-5)
    assert means.size + sum(b.size for d in details for b in d) == x.size
    np.testing.assert_allclose(_synthesis(HOST, means, details), x, atol=2e-6)


def test_outliers_lose_their_weight():
    rng = np.random.default_rng(1)
    residual = rng.normal(0, 1e-3, 20_000)
    residual[:200] = rng.normal(0, 0.05, 200)
    weights = _Noise(1e-6).weights(np, residual)
    large = np.abs(residual) > 8e-3
    assert weights[large].max() < 0.05
    assert weights[np.abs(residual) < 2e-3].mean() > 0.98


def test_more_noise_is_smoothed_without_being_told(spheres):
    rng = np.random.default_rng(2)
    noise = rng.standard_normal(spheres.grid.shape).astype(np.float32) * spheres.mask

    def amplification(sd: float) -> float:
        field = spheres.field + np.float32(sd) * noise
        chi = amppe(field, spheres.mask, spheres.grid)
        flat = (spheres.chi == 0) & spheres.mask
        return float(chi[flat].std() / sd)

    assert amplification(0.02) < amplification(0.002)
