"""RESHARP against the normal equations of the paper."""

from __future__ import annotations

import numpy as np
import scipy.sparse.linalg

from qsmxt.algorithms.background.resharp import RESHARPParameters, resharp


def test_result_minimises_the_functional_of_the_paper(case, plain_mean):
    radius, weight = 4.0, 1e-2
    parameters = RESHARPParameters(
        radius=radius, regularization=weight, tolerance=1e-6, harmonic_degree=-1, extension=False
    )
    local, kept = resharp(case.total, case.mask, case.grid, parameters)
    field = np.where(case.mask, case.total - case.total[case.mask].mean(), 0).astype(float)
    shape = case.grid.shape

    def normal(x):
        x = x.reshape(shape)
        inner = np.where(kept, x - plain_mean(x, radius), 0)
        return (inner - plain_mean(inner, radius) + weight * x).ravel()

    inner = np.where(kept, field - plain_mean(field, radius), 0)
    right = (inner - plain_mean(inner, radius)).ravel()
    operator = scipy.sparse.linalg.LinearOperator((field.size, field.size), matvec=normal, dtype=float)
    expected, info = scipy.sparse.linalg.cg(operator, right, rtol=1e-7, maxiter=2000)
    assert info == 0
    expected = expected.reshape(shape)[kept]
    assert np.abs(local[kept] - expected).max() < 2e-3 * np.abs(expected).max()


def test_more_regularisation_gives_a_smaller_field(case):
    norms = [
        np.linalg.norm(resharp(case.total, case.mask, case.grid, RESHARPParameters(regularization=w))[0])
        for w in (1e-4, 1e-2, 1.0)
    ]
    assert norms[0] > norms[1] > norms[2]


def test_local_field_is_found(case, oblique_case):
    for some in (case, oblique_case):
        local, kept = resharp(some.total, some.mask, some.grid)
        assert some.error(local, kept) < 0.35


def test_iterations_limit_the_work(case):
    told = []
    resharp(case.total, case.mask, case.grid, RESHARPParameters(iterations=3, tolerance=1e-9), progress=told.append)
    assert len(told) == 3
