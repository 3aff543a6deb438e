"""Polynomials for sine and cosine, and wrapping, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.angles import cosine, sine, wrap
from qsmxt.algorithms.compiled import kernel


@kernel
def _apply(x, sines, cosines, wrapped):
    for i in range(x.size):
        sines[i] = sine(x[i])
        cosines[i] = cosine(x[i])
        wrapped[i] = wrap(x[i])


@pytest.mark.parametrize(("limit", "tolerance"), [(np.pi, 6e-7), (100.0, 8e-6)])
def test_angles_against_double_precision(limit, tolerance):
    x = np.linspace(-limit, limit, 100_001).astype(np.float32)
    sines, cosines, wrapped = (np.empty_like(x) for _ in range(3))
    _apply(x, sines, cosines, wrapped)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(sines, np.sin(exact), atol=tolerance)
    np.testing.assert_allclose(cosines, np.cos(exact), atol=tolerance)
    assert np.abs(wrapped).max() <= np.pi * (1 + 1e-5)
    np.testing.assert_allclose(np.sin(wrapped.astype(np.float64)), np.sin(exact), atol=tolerance)
    np.testing.assert_allclose(np.cos(wrapped.astype(np.float64)), np.cos(exact), atol=tolerance)
