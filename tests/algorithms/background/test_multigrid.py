"""Multigrid against a direct sparse solution, and its number of iterations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from qsmxt.algorithms.background import multigrid


def region(shape, holes=True):
    x, y, z = (
        np.linspace(-1, 1, n).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape)
    )
    inside = x**2 + y**2 + z**2 < 0.9
    if holes:
        inside = inside & ((x - 0.3) ** 2 + y**2 + (z + 0.2) ** 2 > 0.04) & ~((np.abs(x) < 0.05) & (z > 0.2))
    for axis in range(3):
        np.moveaxis(inside, axis, 0)[[0, -1]] = False
    return inside


def direct(right, inside, voxel_size):
    """The same system as a sparse matrix, solved by factorisation."""
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    count = int(inside.sum())
    matrix = scipy.sparse.eye(count, format="csr") * sum(2 / v**2 for v in voxel_size)
    for axis, v in enumerate(voxel_size):
        shifted = np.roll(number, 1, axis)
        both = inside & (shifted >= 0)
        part = scipy.sparse.csr_matrix((np.full(both.sum(), -1 / v**2), (number[both], shifted[both])), (count, count))
        matrix = matrix + part + part.T
    out = np.zeros(inside.shape)
    out[inside] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right[inside].astype(float))
    return out


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0), (2.0, 0.7, 0.9)])
def test_solution_is_the_direct_one(voxel_size):
    inside = region((21, 23, 18))
    right = np.random.default_rng(0).normal(size=inside.shape).astype(np.float32) * inside
    found, _ = multigrid.solve(right.copy(), inside, voxel_size, tolerance=1e-6, iterations=50)
    expected = direct(right, inside, voxel_size)
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()
    assert not found[~inside].any()


def test_preconditioner_is_symmetric_and_positive():
    inside = region((19, 22, 17))
    levels = multigrid.hierarchy(inside, (1.0, 1.2, 2.0))
    assert len(levels) > 2
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=inside.shape).astype(np.float32) * inside for _ in range(2))
    pa = multigrid._cycle(levels, 0, a).copy()
    pb = multigrid._cycle(levels, 0, b).copy()
    assert float((pa * b).sum()) == pytest.approx(float((pb * a).sum()), rel=1e-4)
    assert float((pa * a).sum()) > 0


def test_number_of_iterations_does_not_grow_with_the_size():
    counts = []
    for n in (16, 32, 64):
        inside = region((n, n, n))
        right = np.random.default_rng(0).normal(size=inside.shape).astype(np.float32) * inside
        counts.append(multigrid.solve(right, inside, (1, 1, 1), tolerance=1e-5, iterations=50)[1])
    assert max(counts) <= 10


def test_laplacian_of_a_quadratic():
    shape, size = (9, 8, 10), (1.0, 2.0, 0.5)
    x, y, z = (
        (np.arange(n) * v).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, v) in enumerate(zip(shape, size, strict=True))
    )
    inside = np.zeros(shape, bool)
    inside[1:-1, 1:-1, 1:-1] = True
    got = multigrid.negative_laplacian((3 * x * x - y * y + 0.5 * z * z + x * y).astype(np.float32), inside, size)
    np.testing.assert_allclose(got[inside], -(6 - 2 + 1), atol=2e-3)
    assert not got[~inside].any()
