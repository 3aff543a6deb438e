"""Fixed threshold: in the unit of the image, of the range, of the maximum."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.value import ValueParameters, value
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

GRID = Grid((10, 1, 11))
RAMP = np.broadcast_to(np.arange(-2, 9, dtype=np.float32), GRID.shape).copy()


@pytest.mark.parametrize(("of", "threshold", "first"), [("unit", 3.0, 4), ("range", 0.5, 4), ("maximum", 0.25, 3)])
def test_what_the_threshold_refers_to(of, threshold, first):
    mask = value(RAMP, GRID, ValueParameters(threshold, of))
    assert mask.sum() == 10 * (8 - first + 1)
    assert RAMP[mask].min() == first


def test_nonfinite_voxels_stay_out_and_do_not_count():
    image = RAMP.copy()
    image[0, 0, :2] = np.nan, np.inf
    mask = value(image, GRID, ValueParameters(0.5, "range"))
    assert not mask[0, 0, :2].any() and mask.sum() == 50
    with pytest.raises(InputError, match="finite"):
        value(np.full(GRID.shape, np.nan, np.float32), GRID, ValueParameters(0.5, "range"))
