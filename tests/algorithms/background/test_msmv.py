"""mSMV: what it changes, what it protects."""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.algorithms.background.lbv import lbv
from qsmxt.algorithms.background.msmv import MSMVParameters, msmv

PARAMETERS = MSMVParameters(initial="lbv", limit=3.0)


def test_only_the_rim_is_filtered_and_becomes_smaller(case):
    before, kept = lbv(case.total, case.mask, case.grid)
    after, same = msmv(case.total, case.mask, case.grid, PARAMETERS)
    assert np.array_equal(kept, same)
    changed = before != after
    rim = kept & ~morphology.erode(kept, case.grid, PARAMETERS.radius)
    assert changed.any()
    assert not (changed & ~rim).any()


def test_a_high_limit_changes_nothing(case):
    before, _ = lbv(case.total, case.mask, case.grid)
    after, _ = msmv(case.total, case.mask, case.grid, MSMVParameters(initial="lbv", limit=1e6))
    assert np.array_equal(before, after)


def test_vessels_are_left_alone(case):
    before, _ = lbv(case.total, case.mask, case.grid)
    changed = msmv(case.total, case.mask, case.grid, PARAMETERS)[0] != before
    rate = 20 + np.random.default_rng(0).normal(size=case.grid.shape).astype(np.float32)
    vessel = np.zeros(case.grid.shape, bool)
    vessel[tuple(np.argwhere(changed)[0])] = True
    rate[vessel] = 200
    protected, _ = msmv(case.total, case.mask, case.grid, PARAMETERS, r2star=rate)
    assert protected[vessel] == before[vessel]


def test_the_prefilter_removes_the_mean_over_the_sphere(case, plain_mean):
    parameters = MSMVParameters(initial="lbv", limit=1e6, prefilter=True)
    found, kept = msmv(case.total, case.mask, case.grid, parameters)
    before, _ = lbv(case.total, case.mask, case.grid)
    expected = before - plain_mean(before, 5.0) / np.maximum(plain_mean(kept.astype(float), 5.0), 1e-3)
    np.testing.assert_allclose(found[kept], expected[kept], atol=1e-5 * np.abs(before).max())
