"""Laplacian unwrapping against dense least squares of the wrapped differences."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.unwrapping.laplacian import LaplacianParameters, laplacian
from qsmxt.geometry import Grid


def plain(phase: np.ndarray, mask: np.ndarray, voxel: tuple[float, float, float]) -> np.ndarray:
    """Phase of zero mean whose differences are nearest to the wrapped ones, 0 where one of a pair is not masked."""
    number = np.arange(phase.size).reshape(phase.shape)
    rows, data = [], []
    for axis in range(3):
        for here in np.ndindex(*phase.shape):
            there = list(here)
            there[axis] += 1
            if there[axis] == phase.shape[axis]:
                continue
            there = tuple(there)
            row = np.zeros(phase.size)
            row[number[there]], row[number[here]] = 1 / voxel[axis], -1 / voxel[axis]
            step = np.angle(np.exp(1j * (float(phase[there]) - float(phase[here]))))
            rows.append(row)
            data.append(step / voxel[axis] if mask[here] and mask[there] else 0.0)
    return np.linalg.lstsq(np.array(rows), np.array(data), rcond=None)[0].reshape(phase.shape)


@pytest.mark.parametrize("congruent", [False, True])
def test_laplacian_is_the_least_squares_of_wrapped_differences(congruent):
    rng = np.random.default_rng(0)
    grid = Grid((6, 5, 7), (1.0, 1.5, 2.0))
    phase = rng.uniform(-np.pi, np.pi, (2, *grid.shape)).astype(np.float32)
    mask = rng.random(grid.shape) < 0.8
    found = laplacian(phase, grid, LaplacianParameters(congruent=congruent), mask=mask)
    for echo, measured in zip(found, phase, strict=True):
        expected = plain(measured, mask, grid.voxel_size)
        if congruent:
            expected = measured + 2 * np.pi * np.rint((expected - measured) / (2 * np.pi))
        np.testing.assert_allclose(echo, np.where(mask, expected, 0), atol=1e-5)
