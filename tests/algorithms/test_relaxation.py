"""Over-relaxed shrinkage against plain numpy, and its agreement with the plain step."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.differences import Shrinkage
from qsmxt.geometry import Grid

GRID = Grid((9, 10, 11), (1.0, 0.8, 1.5))


def _firm(v, threshold, limit):
    """u of firm shrinkage by cases; 0 where there is no threshold."""
    ramp = np.sign(v) * threshold * (limit - np.abs(v)) / (limit - threshold.max())
    return np.select([np.abs(v) <= threshold, np.abs(v) < limit], [v, ramp], 0.0)


def _oracle(volumes, threshold, weights, relaxation, limit):
    """z and u kept apart, written out for one axis at a time."""
    z = u = np.zeros((3, *GRID.shape))
    for volume in volumes:
        slopes = np.stack([(np.roll(volume, -1, a) - volume) / v for a, v in enumerate(GRID.voxel_size)])
        v = relaxation * slopes + (1 - relaxation) * z + u
        if np.isinf(limit):
            u = np.clip(v, -threshold * weights, threshold * weights)
        else:
            u = _firm(v, threshold * weights, limit * threshold)
        z = v - u
    difference = z - u
    return sum((np.roll(difference[a], 1, a) - difference[a]) / v for a, v in enumerate(GRID.voxel_size))


@pytest.mark.parametrize("limit", [np.inf, 3.0])
@pytest.mark.parametrize("relaxation", [1.0, 1.7])
def test_step_is_the_published_update(relaxation, limit):
    generator = np.random.default_rng(0)
    weights = generator.choice([0, 1], GRID.shape).astype(np.float32)
    volumes = generator.standard_normal((4, *GRID.shape)).astype(np.float32)
    shrinkage = Shrinkage(GRID, weights, relaxation, limit)
    out = np.empty(GRID.shape, dtype=np.float32)
    for volume in volumes:
        shrinkage.step(volume, 0.3, out)
    np.testing.assert_allclose(out, _oracle(volumes, 0.3, weights, relaxation, limit), atol=2e-5)
