"""The rim that erosion gives up comes back with the field of what lies in it and without the background."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.background.harmonics import deep
from qsmxt.geometry import Grid
from qsmxt.registry.methods import lookup
from tests.algorithms.background.test_analytic import GRID, coordinates, mask, sphere_field

ERODING = ("sharp", "resharp", "ismv")


def run(key, field, inside=None, **parameters):
    arrays = {"total_field": field.astype(np.float32), "mask": mask() if inside is None else inside}
    out = lookup("background", key).run(arrays, GRID, parameters)
    return out["local_field"], out["eroded_mask"]


def fields():
    """Of a sphere just inside of the mask, most of whose field lies in the rim, and of a strong one outside."""
    return sphere_field((0.0, 31.0, 0.0), 4.0, 0.5), sphere_field((0.0, -40.0 - 12.0, 0.0), 8.0, 9.0)


@pytest.mark.parametrize("key", ERODING)
def test_the_rim_keeps_the_field_of_a_sphere_in_it(key):
    local, background = fields()
    found, kept = run(key, local + background)
    plain, known = run(key, local + background, extension=False)
    assert np.array_equal(kept, mask())
    assert (known < mask()).any() and (known <= mask()).all()
    assert np.array_equal(found[known], plain[known])
    x, y, z = coordinates()
    near = mask() & ~known & (x * x + (y - 31.0) ** 2 + z * z < 12.0**2) & (x * x + (y - 31.0) ** 2 + z * z > 5.0**2)
    truth = local[near]
    assert near.sum() > 100
    assert np.linalg.norm(found[near] - truth) < 0.6 * np.linalg.norm(truth)
    rim = mask() & ~known
    assert np.abs(found[rim]).std() < 0.2 * background[rim].std()


@pytest.mark.parametrize("key", ERODING)
def test_where_little_is_kept_nothing_is_continued(key):
    x, y, z = coordinates()
    small = np.broadcast_to(x * x + y * y + z * z <= 11.0**2, GRID.shape).copy()
    _, background = fields()
    with_rim, without = (run(key, background, small, extension=e) for e in (True, False))
    assert without[1].sum() < 0.5 * small.sum()
    for one, other in zip(with_rim, without, strict=True):
        assert np.array_equal(one, other)


def test_what_lies_deep_is_a_part_of_what_is_kept_or_all_of_it():
    grid = Grid((31, 31, 31))
    x, y, z = np.indices(grid.shape) - 15
    ball = x * x + y * y + z * z <= 14**2
    radius = np.sqrt(x * x + y * y + z * z)[deep(ball, ball, grid, 2.0)].max()
    assert 11 <= radius <= 12.5
    assert np.array_equal(deep(ball, ball, grid, 8.0), ball)
    assert deep(ball, ball, grid, 0.0) is ball
