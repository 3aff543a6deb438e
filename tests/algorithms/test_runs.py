"""Components by runs: the same as by voxels."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from qsmxt.algorithms.runs import Runs

STRUCTURES = {6: 1, 18: 2, 26: 3}


@pytest.mark.parametrize("neighbours", STRUCTURES)
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(9, 11, 13), (1, 7, 12), (8, 1, 9), (6, 7, 1), (40, 12, 9)])
def test_components_are_those_of_voxels(shape, share, neighbours):
    mask = np.random.default_rng(int(100 * share)).random(shape) < share
    structure = scipy.ndimage.generate_binary_structure(3, STRUCTURES[neighbours])
    labels, count = scipy.ndimage.label(mask, structure)
    runs = Runs.of(mask, neighbours)
    assert runs.count == count
    np.testing.assert_array_equal(runs.sizes(), np.bincount(labels.ravel(), minlength=count + 1)[1:])
    edge = np.ones(shape, dtype=bool)
    edge[1:-1, 1:-1, 1:-1] = False
    reached = set(labels[edge]) - {0}
    assert runs.at_the_edge().tolist() == [n + 1 in reached for n in range(count)]
    every_other = np.arange(count) % 2 == 0
    np.testing.assert_array_equal(runs.mask(every_other), labels % 2 == 1)


def test_nothing_has_no_components():
    runs = Runs.of(np.zeros((3, 4, 5), dtype=bool))
    assert (runs.count, runs.sizes().size, runs.mask(np.zeros(0, dtype=bool)).any()) == (0, 0, False)


def test_rings_are_components_until_a_bridge_joins_them():
    far = np.abs(np.indices((1, 11, 11)) - np.array([0, 5, 5])[:, None, None, None]).max(axis=0)
    mask = far % 2 == 1
    assert Runs.of(mask).count == Runs.of(mask, 26).count == 3
    assert Runs.of(mask).sizes().tolist() == [40, 24, 8]
    mask[0, 5, 1] = True
    assert Runs.of(mask).sizes().tolist() == [65, 8]
    mask[0, 3, 5] = True
    assert Runs.of(mask).sizes().tolist() == [74]
