"""Inhomogeneity: a known bias is divided out, contrast stays."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.homogeneity import homogeneity
from qsmxt.geometry import Grid


def object_and_bias(size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, Grid]:
    """Two tissues in a ball of 60 mm, and a smooth bias of 1 to 3."""
    n = round(150 / size)
    grid = Grid((n, n, n), (size, size, size))
    x = (np.arange(n) - (n - 1) / 2) * size
    distance = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2)
    # checks of 12 mm of two tissues that differ by 30 %
    checks = np.sign(np.sin(x * np.pi / 12))
    tissue = np.where(checks[:, None, None] * checks[None, :, None] * checks[None, None, :] > 0, 1.0, 0.7)
    tissue = np.where(distance <= 60, tissue, 0.0)
    bias = 2 + np.sin(x[:, None, None] / 35) + 0 * distance
    return tissue.astype(np.float32), bias.astype(np.float32), distance, grid


@pytest.mark.parametrize("size", [3.0, 5.0])
def test_a_smooth_bias_is_divided_out(size):
    tissue, bias, distance, grid = object_and_bias(size)
    corrected = homogeneity(tissue * bias, grid)
    core = (distance < 50) & (tissue > 0.9)
    before = np.std((tissue * bias)[core]) / np.mean((tissue * bias)[core])
    after = np.std(corrected[core]) / np.mean(corrected[core])
    assert before > 0.25 and after < 0.06


def test_contrast_stays():
    tissue, bias, distance, grid = object_and_bias(3.0)
    corrected = homogeneity(tissue * bias, grid)
    core = distance < 50
    ratio = np.median(corrected[core & (tissue < 0.8)]) / np.median(corrected[core & (tissue > 0.9)])
    assert ratio == pytest.approx(0.7, abs=0.03)


def test_scales_with_the_image_and_leaves_zero_zero():
    tissue, bias, _, grid = object_and_bias(5.0)
    corrected = homogeneity(tissue * bias, grid)
    np.testing.assert_allclose(homogeneity(64 * tissue * bias, grid), 64 * corrected, rtol=1e-4)
    assert (corrected[tissue == 0] == 0).all()
    assert np.isfinite(corrected).all()
