"""iSMV against the plain iteration of the paper."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.background.ismv import ISMVParameters, ismv


def test_result_is_the_fixed_point_of_the_iteration(case, plain_mean):
    parameters = ISMVParameters(radius=4.0, tolerance=1e-5, harmonic_degree=-1, extension=False)
    local, kept = ismv(case.total, case.mask, case.grid, parameters)
    field = np.where(case.mask, case.total - case.total[case.mask].mean(), 0)
    background = field.copy()
    for _ in range(250):
        background = np.where(kept, plain_mean(background, 4.0), field)
    expected = (field - background)[kept]
    assert np.abs(local[kept] - expected).max() < 1e-3 * np.abs(expected).max()


def test_residual_obeys_the_tolerance(case, plain_mean):
    for tolerance in (1e-1, 1e-3):
        parameters = ISMVParameters(radius=3.0, tolerance=tolerance, harmonic_degree=-1, extension=False)
        local, kept = ismv(case.total, case.mask, case.grid, parameters)
        field = np.where(case.mask, case.total - case.total[case.mask].mean(), 0)
        right = np.where(kept, field - plain_mean(field, 3.0), 0)
        left = np.where(kept, local - plain_mean(local, 3.0), 0)
        assert np.linalg.norm(left - right) < 1.1 * tolerance * np.linalg.norm(right)


def test_local_field_is_found(case, oblique_case):
    for some in (case, oblique_case):
        local, kept = ismv(some.total, some.mask, some.grid)
        assert some.error(local, kept) < 0.25


def test_additive_at_convergence(case):
    parameters = ISMVParameters(tolerance=1e-6)
    a, b, both = (ismv(f, case.mask, case.grid, parameters)[0] for f in (case.local, case.background, case.total))
    assert np.abs(a + b - both).max() < 1e-3 * np.abs(both).max()


@pytest.mark.parametrize("size", [(17, 19, 23), (31, 13, 29)])
def test_prime_sizes_and_a_mask_up_to_the_edge(size):
    from qsmxt.geometry import Grid

    x, y, z = np.indices(size, dtype=np.float32)
    field = 0.02 * (x * x - y * y) + 0.01 * z
    parameters = ISMVParameters(radius=3.0, tolerance=1e-5, extension=False)
    local, kept = ismv(field, np.ones(size, bool), Grid(size), parameters)
    assert np.array_equal(np.argwhere(kept).min(0), [3, 3, 3])
    assert np.abs(local).max() < 1e-4 * np.abs(field).max()
