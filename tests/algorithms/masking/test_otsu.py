"""Otsu's threshold: closed forms and a brute-force oracle."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.otsu import OtsuParameters, otsu, otsu_threshold
from qsmxt.errors import InputError
from qsmxt.geometry import Grid


def test_two_values_are_split_in_the_middle():
    image = np.full((10, 10, 10), 2.0, dtype=np.float32)
    image[:3] = 6.0
    assert otsu_threshold(image) == pytest.approx(4.0, abs=4 / 256)
    mask = otsu(image, Grid(image.shape))
    assert mask[:3].all() and not mask[3:].any()


def test_threshold_maximises_the_variance_between_the_classes():
    rng = np.random.default_rng(1)
    image = np.concatenate([rng.normal(3, 1, 4000), rng.normal(9, 2, 1500)]).reshape(11, 20, 25).astype(np.float32)

    def variance(threshold: float) -> float:
        low, high = image[image <= threshold], image[image > threshold]
        return low.size * high.size * (float(low.mean()) - float(high.mean())) ** 2

    best = max(variance(t) for t in np.linspace(1, 14, 500))
    assert variance(otsu_threshold(image)) > 0.999 * best


def test_zeros_and_nonfinite_values_do_not_count():
    rng = np.random.default_rng(2)
    tissue = rng.normal(10, 1, (8, 8, 8)).astype(np.float32)
    tissue[:4] += 10
    padded = np.zeros((8, 8, 30), dtype=np.float32)
    padded[..., :8] = tissue
    padded[0, 0, 20:23] = np.nan, np.inf, -np.inf
    assert otsu_threshold(padded) == pytest.approx(otsu_threshold(tissue), rel=1e-6)
    assert not otsu(padded, Grid(padded.shape))[0, 0, 20:].any()


def test_factor_scales_the_threshold():
    image = np.linspace(1, 100, 1000, dtype=np.float32).reshape(10, 10, 10)
    threshold = otsu_threshold(image)
    mask = otsu(image, Grid(image.shape), OtsuParameters(factor=1.3))
    assert mask.sum() == (image > np.float32(1.3 * threshold)).sum()


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_an_image_without_contrast_is_refused(value):
    with pytest.raises(InputError, match="contrast"):
        otsu(np.full((4, 4, 4), value, dtype=np.float32), Grid((4, 4, 4)))
