"""Harmonic continuation against harmonic functions, and its boundary."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import parallel
from qsmxt.algorithms.dirichlet import harmonic_continuation, interior
from qsmxt.geometry import Grid


def _ellipsoid(shape, radii):
    axes = [(np.arange(n) - (n - 1) / 2) / r for n, r in zip(shape, radii, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x * x + y * y + z * z <= 1


def _positions(grid):
    axes = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(grid.shape, grid.voxel_size, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


@pytest.mark.parametrize("voxel_size", [(1, 1, 1), (1, 1, 3), (0.7, 1.4, 1)])
def test_second_order_harmonics_are_their_own_continuation(voxel_size):
    grid = Grid((37, 41, 29), voxel_size)
    mask = _ellipsoid(grid.shape, (17, 19, 13))
    x, y, z = _positions(grid)
    for function in (x, x * y, y * z - x, x**2 - y**2, 2 * z**2 - x**2 - y**2):
        field = function.astype(np.float32)
        found, inside = harmonic_continuation(field, mask, grid)
        assert np.abs(found - field)[inside].max() < 1e-4 * np.abs(field[mask]).max()


def test_field_of_an_outside_source_is_continued_from_its_boundary_values():
    grid = Grid((40, 40, 40))
    mask = _ellipsoid(grid.shape, (15, 15, 15))
    x, y, z = _positions(grid)
    field = (1 / np.sqrt((x - 26) ** 2 + y**2 + z**2)).astype(np.float32)
    found, inside = harmonic_continuation(field, mask, grid)
    assert np.abs(found - field)[inside].max() < 2e-3 * (field[inside].max() - field[inside].min())


def test_result_is_the_discrete_harmonic_function():
    """The 7-point Laplacian of the continuation vanishes at every interior voxel of a ragged mask."""
    generator = np.random.default_rng(3)
    mask = _ellipsoid((30, 34, 26), (13, 15, 11)) & (generator.random((30, 34, 26)) > 0.004)
    field = generator.standard_normal(mask.shape).astype(np.float32)
    found, inside = harmonic_continuation(field, mask, Grid(mask.shape), tolerance=1e-6)
    u = found.astype(np.float64)
    laplacian = sum(np.roll(u, s, a) for a in range(3) for s in (-1, 1)) - 6 * u
    assert np.abs(laplacian[inside]).max() < 1e-4
    np.testing.assert_array_equal(found[mask & ~inside], field[mask & ~inside])
    assert not found[~mask].any()


def test_interior_needs_all_six_neighbours_and_the_border_has_none():
    mask = np.ones((5, 5, 5), dtype=bool)
    mask[2, 2, 2] = False
    expected = np.zeros_like(mask)
    expected[1:4, 1:4, 1:4] = True
    for i, j, k in ((2, 2, 2), (1, 2, 2), (3, 2, 2), (2, 1, 2), (2, 3, 2), (2, 2, 1), (2, 2, 3)):
        expected[i, j, k] = False
    np.testing.assert_array_equal(interior(mask), expected)


def test_mask_without_interior_gives_its_own_values():
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[2:4, 2:4, 3] = True
    field = np.arange(216, dtype=np.float32).reshape(6, 6, 6)
    found, inside = harmonic_continuation(field, mask, Grid((6, 6, 6)))
    np.testing.assert_array_equal(found, np.where(mask, field, 0))
    assert not inside.any()


def test_same_bytes_for_any_number_of_threads():
    mask = _ellipsoid((33, 35, 31), (15, 16, 14))
    field = np.random.default_rng(0).standard_normal(mask.shape).astype(np.float32)
    results = []
    try:
        for threads in (1, 2, 8):
            parallel.set_thread_count(threads)
            results.append(harmonic_continuation(field, mask, Grid(mask.shape))[0].tobytes())
    finally:
        parallel.set_thread_count(None)
    assert results[0] == results[1] == results[2]
