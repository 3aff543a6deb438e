"""Flooding from outside: channels are followed, cavities and the edge of the volume are not entered."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from qsmxt.algorithms.masking.flood import reached


def test_a_channel_is_followed_and_a_cavity_is_not():
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[1:8, 1:8, 1:8] = True
    passable = np.zeros_like(mask)
    passable[4, 4, 1:5] = True
    passable[4, 5, 4] = True
    passable[6, 6, 6] = True
    expected = passable.copy()
    expected[6, 6, 6] = False
    np.testing.assert_array_equal(reached(mask, passable), expected)


def test_the_edge_of_the_volume_is_no_outside():
    mask = np.ones((5, 5, 5), dtype=bool)
    assert not reached(mask, np.ones_like(mask)).any()


def test_agrees_with_labelled_components():
    rng = np.random.default_rng(0)
    mask, passable = rng.random((2, 14, 15, 16)) < 0.6
    labels, _ = ndimage.label(~mask | passable)
    touching = np.unique(labels[~mask])
    # components of the union that contain an outside voxel, reached without passing through the outside's own gaps
    grown = ~mask
    for _ in range(200):
        grown = grown | (ndimage.binary_dilation(grown) & passable & mask)
    assert set(np.unique(labels[grown])) <= set(touching)
    np.testing.assert_array_equal(reached(mask, passable), grown & mask)
