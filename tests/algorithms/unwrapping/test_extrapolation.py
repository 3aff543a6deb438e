"""Turns of phase that is steeper than half a turn from voxel to voxel."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import parallel
from qsmxt.algorithms.unwrapping.extrapolation import extrapolate_turns
from qsmxt.algorithms.unwrapping.growing import unwrap_regions
from qsmxt.algorithms.unwrapping.weights import Edges

SHAPE = (40, 36, 32)


def steep() -> np.ndarray:
    """A slope along x that grows to 4.6 rad per voxel at the face x = 0, rad."""
    x, y, _ = np.indices(SHAPE)
    return (266667 / (x + 20.0) ** 3 + 0.05 * y).astype(np.float32)


def unwrapped(truth: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """What region growing makes of it."""
    phase = np.angle(np.exp(1j * truth)).astype(np.float32)
    unwrap_regions(phase, Edges(phase, usable, "romeo").costs())
    return phase


def turns_off(phase: np.ndarray, truth: np.ndarray) -> int:
    """Voxels with a turn other than most have."""
    turns = np.rint((phase - truth) / (2 * np.pi))
    return int(np.count_nonzero(turns != np.median(turns)))


def test_what_region_growing_cannot_tell_is_right_afterwards():
    truth, usable = steep(), np.ones(SHAPE, np.uint8)
    phase = unwrapped(truth, usable)
    before = turns_off(phase, truth)
    assert np.abs(np.diff(truth, axis=0)).max() > 4
    assert before > 2000
    assert extrapolate_turns(phase, usable) >= before
    assert turns_off(phase, truth) == 0


def test_noise_of_usual_size_does_not_mislead():
    truth, usable = steep(), np.ones(SHAPE, np.uint8)
    noisy = truth + np.random.default_rng(0).normal(0, 0.1, SHAPE).astype(np.float32)
    phase = unwrapped(noisy, usable)
    before = turns_off(phase, noisy)
    extrapolate_turns(phase, usable)
    assert turns_off(phase, noisy) < 0.05 * before


def test_flat_phase_and_unusable_voxels_stay():
    x, y, z = np.indices(SHAPE)
    phase = (1.5 * x - 0.5 * y + z).astype(np.float32)
    usable = np.ones(SHAPE, np.uint8)
    usable[:, 10] = 0
    phase[:, 10] = 50.0
    copy = phase.copy()
    assert extrapolate_turns(phase, usable) == 0
    np.testing.assert_array_equal(phase, copy)


@pytest.mark.parametrize("shape", [(1, 5, 6), (5, 1, 6), (5, 6, 1), (1, 1, 1), (2, 2, 2)])
def test_thin_volumes(shape):
    phase = np.zeros(shape, np.float32)
    phase[0, 0, 0] = 2.5
    before = phase.copy()
    extrapolate_turns(phase, np.ones(shape, np.uint8))
    np.testing.assert_array_equal(phase, before)


def test_same_bytes_for_any_number_of_threads():
    usable = np.ones(SHAPE, np.uint8)
    start = unwrapped(steep() + np.random.default_rng(1).normal(0, 0.3, SHAPE).astype(np.float32), usable)
    found = []
    for count in (1, 2, 8):
        parallel.set_thread_count(count)
        phase = start.copy()
        extrapolate_turns(phase, usable)
        found.append(phase.tobytes())
    parallel.set_thread_count(None)
    assert found[0] == found[1] == found[2]
