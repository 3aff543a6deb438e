"""Whole turns between unconnected regions from the continuity of the offset."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.offset.regions import join_large_regions

SHAPE = (40, 16, 16)


def make(turns: int, ratio: float, noise: float = 0.1) -> tuple[np.ndarray, ...]:
    """A field with a jump across the gap, a smooth offset, and a second region that is ``turns`` too low."""
    rng = np.random.default_rng(0)
    x = np.indices(SHAPE)[0]
    regions = np.where(x < 24, 1, np.where(x < 27, 0, 2)).astype(np.int32)
    unwrapped = (0.2 * x + 5.0 * (x > 25) - 2 * np.pi * turns * (regions == 2)).astype(np.float32)
    offset = 0.8 + 0.02 * x - 2 * np.pi * turns * ratio * (regions == 2) + noise * rng.standard_normal(SHAPE)
    return unwrapped, regions, np.angle(np.exp(1j * offset)).astype(np.float32), (regions > 0).astype(np.float32)


@pytest.mark.parametrize("turns", [-2, -1, 0, 1, 2])
def test_the_turns_are_found_whatever_the_field_does(turns):
    unwrapped, regions, offset, weight = make(turns, 1.2)
    expected = make(0, 1.2)
    where = join_large_regions(unwrapped, regions, offset, weight, 1.2)
    np.testing.assert_allclose(unwrapped, expected[0], atol=1e-5)
    np.testing.assert_allclose(np.angle(np.exp(1j * (offset - expected[2]))), 0, atol=1e-4)
    np.testing.assert_array_equal(where, regions > 0)


def test_an_integer_ratio_tells_nothing_and_changes_nothing():
    unwrapped, regions, offset, weight = make(1, 2.0)
    before = unwrapped.copy()
    assert join_large_regions(unwrapped, regions, offset, weight, 2.0)[regions == 2].all()
    np.testing.assert_array_equal(unwrapped, before)


def test_regions_that_are_small_or_contradict_themselves_are_left_out():
    unwrapped, regions, offset, weight = make(0, 1.2)
    offset[30:, :8] += 1.5
    offset[27:30, :8] += 1.5
    where = join_large_regions(unwrapped, regions, offset, weight, 1.2)
    assert where[regions == 1].all()
    assert not where[regions == 2].any()
    unwrapped, regions, offset, weight = make(0, 1.2)
    regions[28:] = 0
    regions[27, 2:] = 0
    assert not join_large_regions(unwrapped, regions, offset, weight, 1.2)[27].any()
