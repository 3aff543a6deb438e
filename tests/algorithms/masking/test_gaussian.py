"""Valley threshold: brute-force oracle and position between the peaks."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.gaussian import GaussianParameters, gaussian, gaussian_threshold
from qsmxt.geometry import Grid


def two_peaks() -> np.ndarray:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 2, 60_000), rng.normal(50, 6, 40_000)])
    return values.reshape(10, 100, 100).astype(np.float32)


def test_the_threshold_lies_in_the_valley():
    image = two_peaks()
    threshold = gaussian_threshold(image)
    assert 17 < threshold < 32
    assert gaussian(image, Grid(image.shape)).mean() == pytest.approx(0.4, abs=0.005)


def test_the_bin_with_the_largest_deficit_is_chosen():
    image = two_peaks()
    values = image.ravel().astype(float)
    quarter, rest = np.quantile(values, (0.25, 0.75))
    bins = int(np.ceil(np.ptp(values) / (2 * (rest - quarter) * values.size ** (-1 / 3))))
    number, edges = np.histogram(values, bins)
    centre = 0.5 * (edges[1:] + edges[:-1])
    normal = np.exp(-0.5 * ((centre - values.mean()) / values.std()) ** 2)
    deficit = normal / normal.sum() - number / number.sum()
    assert gaussian_threshold(image) == pytest.approx(centre[deficit.argmax()])


def test_factor_scales_the_threshold():
    image = two_peaks()
    expected = (image > np.float32(1.5 * gaussian_threshold(image))).sum()
    assert gaussian(image, Grid(image.shape), GaussianParameters(factor=1.5)).sum() == expected
