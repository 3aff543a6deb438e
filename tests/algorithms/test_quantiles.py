"""Counting gives what sorting does."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.quantiles import quantiles

FRACTIONS = (0.0, 0.01, 0.3, 0.5, 0.99, 1.0)


@pytest.mark.parametrize("size", [1, 2, 7, 50_001])
def test_quantiles_are_those_of_the_sorted_numbers(size):
    rng = np.random.default_rng(size)
    for values in (rng.standard_normal(size), rng.exponential(1e-8, size), rng.integers(-3, 3, size), np.zeros(size)):
        values = values.astype(np.float32)
        wanted = np.quantile(values.astype(np.float64), FRACTIONS)
        np.testing.assert_allclose(quantiles(values, FRACTIONS), wanted, rtol=3e-7, atol=0)
