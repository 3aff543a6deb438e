"""LBV: exact where theory promises it, and the boundary of the mask."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from qsmxt.algorithms.background.lbv import LBVParameters, lbv, without_boundary
from qsmxt.errors import InputError
from qsmxt.geometry import Grid


def test_a_local_field_that_vanishes_on_the_boundary_is_recovered_exactly(case):
    """The assumption of the method holds, so it is exact up to the tolerance."""
    x, y, z = np.indices(case.grid.shape) - 20.0
    inner = scipy.ndimage.binary_erosion(case.mask, iterations=3)
    local = np.where(inner, 0.1 * np.sin(0.5 * x) * np.cos(0.4 * y), 0).astype(np.float32)
    background = (0.05 * (x * y + z) + 0.01 * (x * x - z * z)).astype(np.float32)
    parameters = LBVParameters(tolerance=1e-6, harmonic_degree=-1)
    found, kept = lbv(local + background, case.mask, case.grid, parameters)
    assert np.abs(found - local)[kept].max() < 1e-3 * np.abs(local).max()


def test_boundary_is_the_outermost_layer(case):
    _, kept = lbv(case.total, case.mask, case.grid)
    assert np.array_equal(kept, scipy.ndimage.binary_erosion(case.mask))
    full = np.ones((5, 6, 7), bool)
    assert without_boundary(full).sum() == 3 * 4 * 5


def test_background_is_harmonic_and_agrees_on_the_boundary(case):
    found, kept = lbv(case.total, case.mask, case.grid, LBVParameters(tolerance=1e-6, harmonic_degree=-1))
    background = case.total - found
    laplacian = sum(np.roll(background, s, a) for a in range(3) for s in (1, -1)) - 6 * background
    assert np.abs(laplacian[kept]).max() < 1e-4 * np.abs(background).max()


def test_peel(case):
    _, kept = lbv(case.total, case.mask, case.grid, LBVParameters(peel=2.0))
    _, all_of_it = lbv(case.total, case.mask, case.grid)
    assert kept.sum() < all_of_it.sum()
    assert (kept <= all_of_it).all()


def test_local_field_is_found(case, oblique_case):
    for some in (case, oblique_case):
        local, kept = lbv(some.total, some.mask, some.grid)
        assert some.error(local, kept) < 0.3


@pytest.mark.parametrize("shape", [(20, 24, 1), (20, 24, 2), (1, 1, 40)])
def test_a_slab_without_interior_is_refused(shape):
    with pytest.raises(InputError, match="six neighbours"):
        lbv(np.zeros(shape, np.float32), np.ones(shape, bool), Grid(shape))
