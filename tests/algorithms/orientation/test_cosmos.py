"""COSMOS: three orientations determine the susceptibility."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from qsmxt.algorithms import fourier, kernels, parallel
from qsmxt.algorithms.metrics import nrmse
from qsmxt.algorithms.orientation.cosmos import COSMOSParameters, cosmos
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SHAPE = (44, 48, 40)
GRID = Grid(SHAPE, (1.5, 1.5, 1.5), (0, 0.6, 0.8))
DIRECTIONS = np.array([(0, 0, 1), (0, np.sin(0.6), np.cos(0.6)), (np.sin(0.6), 0, np.cos(0.6))])


@pytest.fixture(scope="module")
def brain():
    """Mask, and a textured susceptibility with strong small sources in it (ppm, standard deviation 0.04)."""
    x, y, z = (np.arange(n) - (n - 1) / 2 for n in SHAPE)
    radius = np.sqrt((x[:, None, None] / 18) ** 2 + (y[None, :, None] / 20) ** 2 + (z[None, None, :] / 16) ** 2)
    mask = radius < 1
    rng = np.random.default_rng(0)
    chi = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.5)
    chi *= 0.03 / chi.std()
    chi[18:24, 20:26, 18:22] += 0.1
    chi[28, 30, 20] = -1.0
    return mask, np.where(mask, chi, 0).astype(np.float32)


def _fields(chi, directions, noise=0.0, voxel=(1.5, 1.5, 1.5)):
    rng = np.random.default_rng(1)
    wide = Grid(tuple(2 * n for n in chi.shape), voxel)
    padded = np.zeros(wide.shape, dtype=np.float32)
    part = tuple(slice(0, n) for n in chi.shape)
    padded[part] = chi
    found = []
    for b in directions:
        dipole = kernels.dipole(dataclasses.replace(wide, b0_direction=tuple(b)), "greens")
        found.append(fourier.filtered(padded, dipole)[part] + noise * rng.standard_normal(chi.shape))
    return np.stack(found).astype(np.float32)


def test_three_orientations_are_within_ten_percent(brain):
    """Noise of 0.0005 and 0.001 ppm: a signal-to-noise ratio of 100 and 50 at 3 T, four echoes to 28 ms."""
    mask, chi = brain
    for noise, worst in ((0.0005, 8.0), (0.001, 12.0)):
        found = cosmos(_fields(chi, DIRECTIONS, noise), DIRECTIONS, mask, GRID)
        print("nrmse", noise, nrmse(found, chi, mask))
        assert nrmse(found, chi, mask) < worst
        assert not found[~mask].any() and abs(found[mask].mean()) < 1e-6


def test_without_noise_and_prior_it_is_nearly_exact(brain):
    mask, chi = brain
    settings = COSMOSParameters(weight=0.0, iterations=100, tolerance=0.0)
    assert nrmse(cosmos(_fields(chi, DIRECTIONS), DIRECTIONS, mask, GRID, settings), chi, mask) < 1.5


def test_fields_outside_the_mask_do_not_matter(brain):
    mask, chi = brain
    fields = _fields(chi, DIRECTIONS, 0.0005)
    broken = np.where(mask, fields, 7.0)
    np.testing.assert_array_equal(cosmos(broken, DIRECTIONS, mask, GRID), cosmos(fields, DIRECTIONS, mask, GRID))


def test_two_orientations_are_better_than_one_alone_could_be(brain):
    mask, chi = brain
    fields = _fields(chi, DIRECTIONS[:2], 0.0005)
    assert nrmse(cosmos(fields, DIRECTIONS[:2], mask, GRID), chi, mask) < 11


def test_noise_weights_the_fields(brain):
    """One orientation that is four times as noisy as the others, and noise that is not the same everywhere."""
    mask, chi = brain
    rng = np.random.default_rng(5)
    noise = 0.0005 * np.ones((3, *SHAPE), dtype=np.float32)
    noise[2] *= 4
    noise[:, 10:20] *= 3
    fields = _fields(chi, DIRECTIONS) + noise * rng.standard_normal(noise.shape)
    alone = COSMOSParameters(discrepancy=0.0)
    plain = nrmse(cosmos(fields, DIRECTIONS, mask, GRID, alone), chi, mask)
    weighted = nrmse(cosmos(fields, DIRECTIONS, mask, GRID, alone, oriented_noise=noise), chi, mask)
    print("nrmse", plain, weighted)
    assert weighted < 0.9 * plain


def test_what_one_field_alone_has_is_distrusted(brain):
    """A remnant of the background in one orientation: a strong source just outside the mask."""
    mask, chi = brain
    outside = np.zeros(SHAPE, dtype=np.float32)
    outside[np.unravel_index(np.argmax(mask), SHAPE)] = 9.0
    fields = _fields(chi, DIRECTIONS, 0.0005)
    fields[1] += _fields(outside, DIRECTIONS[1:2])[0]
    inside = mask & (outside == 0)
    errors = [
        nrmse(cosmos(fields, DIRECTIONS, mask, GRID, COSMOSParameters(discrepancy=d)), chi, inside) for d in (0, 2e-3)
    ]
    print("nrmse", errors)
    assert errors[1] < 0.5 * errors[0]


def test_signs_order_and_grid_direction_do_not_matter(brain):
    mask, chi = brain
    fields = _fields(chi, DIRECTIONS)
    expected = cosmos(fields, DIRECTIONS, mask, GRID)
    other = dataclasses.replace(GRID, b0_direction=(1, 0, 0))
    found = cosmos(fields[::-1], -3 * DIRECTIONS[::-1], mask, other)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_field_of_great_noise_does_not_count(brain):
    mask, chi = brain
    fields = _fields(chi, DIRECTIONS)
    broken = np.concatenate([fields, np.ones((1, *SHAPE), np.float32)])
    directions = np.concatenate([DIRECTIONS, [(0, 1, 0)]])
    noise = np.ones(broken.shape, dtype=np.float32)
    noise[3] = 1e4
    found = cosmos(broken, directions, mask, GRID, oriented_noise=noise)
    assert nrmse(found, cosmos(fields, DIRECTIONS, mask, GRID), mask) < 2


def test_anisotropic_voxels(brain):
    _, chi = brain
    mask = ndimage.binary_erosion(np.ones(SHAPE, bool), iterations=6)
    chi = np.where(mask, ndimage.gaussian_filter(chi, 1.0), 0).astype(np.float32)
    size = (1.0, 1.0, 2.5)
    found = cosmos(_fields(chi, DIRECTIONS, voxel=size), DIRECTIONS, mask, Grid(SHAPE, size))
    assert nrmse(found, chi, mask) < 8


def test_bad_input_is_named(brain):
    mask, chi = brain
    fields = _fields(chi, DIRECTIONS[:2])
    with pytest.raises(InputError, match="at least 2 orientations"):
        cosmos(fields[:1], DIRECTIONS[:1], mask, GRID)
    with pytest.raises(InputError, match="b0_directions: expected 2"):
        cosmos(fields, DIRECTIONS, mask, GRID)
    with pytest.raises(InputError, match="within 1 degree"):
        cosmos(fields, DIRECTIONS[[0, 0]], mask, GRID)
    with pytest.raises(InputError, match="oriented_noise: expected shape"):
        cosmos(fields, DIRECTIONS[:2], mask, GRID, oriented_noise=fields[:1])
    with pytest.raises(InputError, match="empty mask"):
        cosmos(fields, DIRECTIONS[:2], np.zeros(SHAPE, bool), GRID)


def test_same_bytes_for_any_number_of_threads(brain):
    mask, chi = brain
    fields = _fields(chi, DIRECTIONS, 0.001)
    results = []
    try:
        for threads in (1, 2, 8):
            parallel.set_thread_count(threads)
            results.append(cosmos(fields, DIRECTIONS, mask, GRID, COSMOSParameters(iterations=3)).tobytes())
    finally:
        parallel.set_thread_count(None)
    assert results[0] == results[1] == results[2]
