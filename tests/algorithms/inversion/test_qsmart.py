"""Vessels are found, and only they."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.inversion.qsmart import qsmart
from qsmxt.algorithms.inversion.vesselness import vesselness
from qsmxt.geometry import Grid


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1, 1])
def test_dark_tubes_are_vessels_bright_ones_and_sheets_are_not(axis, sign):
    grid = Grid((32, 32, 32))
    image = np.ones(grid.shape, dtype=np.float32)
    moved = np.moveaxis(image, axis, 0)
    moved[:, 10:13, 10:13] += np.float32(0.5 * sign)
    moved[:, 22:25, :] += np.float32(0.5 * sign)
    mask = np.zeros(grid.shape, dtype=bool)
    mask[5:27, 5:27, 5:27] = True
    found = np.moveaxis(vesselness(image, mask, grid, (1.0, 1.5, 2.0)), axis, 0)
    tube, sheet = found[8:24, 11, 11], found[8:24, 23, 16:22]
    if sign < 0:
        assert tube.min() > 0.3
        assert sheet.max() < 0.5 * tube.min()
    else:
        assert tube.max() < 0.05


def test_without_vessels_the_magnitude_changes_nothing(spheres):
    even = np.ones(spheres.grid.shape, dtype=np.float32)
    one = qsmart(spheres.field, spheres.mask, spheres.grid)
    other = qsmart(spheres.field, spheres.mask, spheres.grid, magnitude=even)
    np.testing.assert_array_equal(one, other)
