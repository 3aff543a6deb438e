"""Gaussian mixture: parameters and threshold of a known mixture."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from qsmxt.algorithms.masking.gmm import GMMParameters, fit_mixture, gmm, gmm_threshold
from qsmxt.algorithms.masking.otsu import otsu_threshold
from qsmxt.geometry import Grid


def mixture() -> np.ndarray:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 2, 70_000), rng.normal(40, 8, 50_000)])
    return values.reshape(40, 50, 60).astype(np.float32)


def test_the_fit_recovers_the_mixture():
    image = mixture()
    number, edges = np.histogram(image, 256)
    weight, mean, width = fit_mixture(number.astype(float), 0.5 * (edges[1:] + edges[:-1]), np.array([5.0, 60.0]))
    np.testing.assert_allclose(weight, [7 / 12, 5 / 12], atol=0.01)
    np.testing.assert_allclose(mean, [10, 40], atol=0.3)
    np.testing.assert_allclose(width, [2, 8], atol=0.3)


def test_the_threshold_is_where_both_classes_are_equally_likely():
    def difference(x: float) -> float:
        return 7 * norm.pdf(x, 10, 2) - 5 * norm.pdf(x, 40, 8)

    image = mixture()
    expected = brentq(difference, 12, 30)
    assert gmm_threshold(image) == pytest.approx(expected, abs=0.3)
    assert gmm_threshold(image) < otsu_threshold(image) - 3
    assert np.mean(gmm(image, Grid(image.shape))) == pytest.approx(5 / 12, abs=0.005)


def test_three_classes_still_cut_above_the_lowest():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(5, 1, 40_000), rng.normal(30, 3, 30_000), rng.normal(60, 3, 30_000)])
    image = values.reshape(10, 100, 100).astype(np.float32)
    mask = gmm(image, Grid(image.shape), GMMParameters(classes=3))
    assert mask.mean() == pytest.approx(0.6, abs=0.002)
