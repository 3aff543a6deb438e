"""Coherence of a voxel under a phase gradient."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.dephasing import gradient_coherence, squared_slope

SHAPE = (9, 8, 10)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slope", [0.3, 2.0, 2 * np.pi])
def test_a_slope_gives_the_sinc_also_at_the_border(axis, slope):
    phase = (slope * np.indices(SHAPE)[axis]).astype(np.float32)
    found = gradient_coherence(phase, np.ones(SHAPE, np.uint8))
    np.testing.assert_allclose(found, abs(np.sinc(slope / (2 * np.pi))), atol=2e-5)


def test_slopes_along_several_axes_multiply_and_the_scale_applies():
    x, y, z = np.indices(SHAPE)
    found = gradient_coherence((x + 2 * y - 3 * z).astype(np.float32), np.ones(SHAPE, np.uint8), 0.5)
    expected = np.prod([np.sinc(0.5 * s / (2 * np.pi)) for s in (1, 2, 3)])
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_one_bad_neighbour_and_unusable_voxels_do_not_count():
    phase = np.zeros(SHAPE, np.float32)
    phase[4, 4, 4] = 3.0
    usable = np.ones(SHAPE, np.uint8)
    usable[2] = 0
    found = gradient_coherence(phase, usable)
    assert found[4, 4, 4] == pytest.approx(np.sinc(3 / (2 * np.pi)) ** 3, abs=1e-5)
    assert found[5, 4, 4] == found[4, 4, 5] == found[4, 3, 4] == 1
    assert not found[2].any()
    assert (found[1] == 1).all()


@pytest.mark.parametrize("shape", [(1, 5, 6), (5, 1, 6), (5, 6, 1), (1, 1, 2)])
def test_thin_volumes(shape):
    found = gradient_coherence(np.zeros(shape, np.float32), np.ones(shape, np.uint8))
    np.testing.assert_array_equal(found, 1)


def test_the_squared_slope_is_the_sum_over_the_axes_and_gives_the_coherence_to_second_order():
    x, y, z = np.indices(SHAPE)
    phase = (0.1 * x + 0.2 * y - 0.3 * z).astype(np.float32)
    usable = np.ones(SHAPE, np.uint8)
    usable[2] = 0
    found = squared_slope(phase, usable, 2.0)
    np.testing.assert_allclose(found[usable > 0], 4 * (0.01 + 0.04 + 0.09), rtol=1e-4)
    assert not found[2].any()
    np.testing.assert_allclose(np.exp(-found / 24)[0], gradient_coherence(phase, usable, 2.0)[0], atol=2e-4)
