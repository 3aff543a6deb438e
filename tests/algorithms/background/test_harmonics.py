"""Solid harmonics: exact for what they span, a projection, and well behaved where they coincide."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import parallel
from qsmxt.algorithms.background.harmonics import remove_harmonics
from qsmxt.geometry import Grid

GRID = Grid((26, 30, 22), (1.0, 1.2, 1.7))


def coordinates(grid=GRID):
    return [
        ((np.arange(n) - n / 2 + 2) * v).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, v) in enumerate(zip(grid.shape, grid.voxel_size, strict=True))
    ]


def ellipsoid(grid=GRID):
    x, y, z = coordinates(grid)
    return ((x - 2) / 11) ** 2 + ((y - 2) / 15) ** 2 + ((z - 3) / 16) ** 2 < 1


def polynomials():
    x, y, z = coordinates()
    zero = 0 * x * y * z
    return {
        1: [x + zero, y + 2 * z + zero],
        2: [x * y + zero, x * x - y * y + zero, 2 * z * z - x * x - y * y, y * z + zero],
        3: [x * y * z, 2 * z**3 - 3 * z * (x * x + y * y), x**3 - 3 * x * y * y + zero],
        4: [x**4 - 6 * x * x * y * y + y**4 + zero, x * y * (6 * z * z - x * x - y * y)],
        6: [x**6 - 15 * x**4 * y**2 + 15 * x**2 * y**4 - y**6 + zero],
    }


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 6])
def test_harmonic_polynomials_vanish_from_their_degree_on(degree):
    mask = ellipsoid()
    for field in polynomials()[degree]:
        field = (field / field[mask].std()).astype(np.float32)
        assert np.abs(remove_harmonics(field, mask, GRID, degree)).max() < 2e-5
        assert remove_harmonics(field, mask, GRID, 0)[mask].std() == pytest.approx(1, rel=1e-5)


def test_what_is_left_is_orthogonal_and_stays():
    mask = ellipsoid()
    field = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    left = remove_harmonics(field, mask, GRID, 4)
    np.testing.assert_allclose(remove_harmonics(left, mask, GRID, 4), left, atol=1e-6)
    for degree in (1, 2, 3, 4):
        for harmonic in polynomials()[degree]:
            part = float((left[mask] * harmonic[mask]).sum())
            assert abs(part) < 1e-5 * np.linalg.norm(left[mask]) * np.linalg.norm(harmonic[mask])
    assert not left[~mask].any()


def test_field_outside_the_mask_does_not_matter():
    mask = ellipsoid()
    field = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    other = np.where(mask, field, np.float32(np.nan))
    assert np.array_equal(remove_harmonics(field, mask, GRID, 3), remove_harmonics(other, mask, GRID, 3))


@pytest.mark.parametrize("shape", [(20, 24, 1), (1, 20, 24), (20, 1, 1)])
def test_functions_that_coincide_on_a_slab_are_no_trouble(shape):
    grid = Grid(shape)
    x, y, _ = coordinates(grid)
    mask = np.ones(shape, bool)
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    field = (3 * x - y + np.zeros(shape) + noise).astype(np.float32)
    left = remove_harmonics(field, mask, grid, 2)
    assert np.linalg.norm(left) <= np.linalg.norm(noise)
    assert np.linalg.norm(left) >= 0.5 * np.linalg.norm(noise)


def test_a_negative_degree_only_masks():
    mask = ellipsoid()
    field = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    assert np.array_equal(remove_harmonics(field, mask, GRID, -1), field * mask)


def test_same_bytes_for_any_number_of_threads():
    mask = ellipsoid()
    field = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    results = []
    try:
        for threads in (1, 2, 8):
            parallel.set_thread_count(threads)
            results.append(remove_harmonics(field, mask, GRID, 4).tobytes())
    finally:
        parallel.set_thread_count(None)
    assert len(set(results)) == 1
