"""Mutual information against the closed form of normal variables."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.statistics.similarity import correlation, mutual_information
from qsmxt.errors import InputError

RNG = np.random.default_rng(5)
X, Z = RNG.normal(size=(2, 400_000))


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_normal_variables(rho):
    y = rho * X + np.sqrt(1 - rho**2) * Z
    information = mutual_information(X, y, bins=48)
    assert information == pytest.approx(-0.5 * np.log(1 - rho**2), rel=0.06)
    assert correlation(information) == pytest.approx(rho, abs=0.02)


def test_independent_images_have_none_and_contrast_does_not_matter():
    assert mutual_information(X, Z) < 3e-4
    assert mutual_information(X, np.exp(-X)) == pytest.approx(np.log(24), rel=1e-3)
    assert mutual_information(np.exp(X), 0.5 * X + Z) == pytest.approx(mutual_information(X, 0.5 * X + Z))


def test_constant_images_have_none():
    assert mutual_information(np.zeros(1000), X[:1000]) == 0


def test_only_the_mask_counts():
    y = X.copy()
    y[:200_000] = Z[:200_000]
    mask = np.arange(X.size) >= 200_000
    assert mutual_information(X, y, mask) > 3 > mutual_information(X, y)
    with pytest.raises(InputError, match="at least 24 voxels"):
        mutual_information(X, y, np.arange(X.size) < 3)
