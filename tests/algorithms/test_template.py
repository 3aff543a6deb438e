"""Means of maps, inverse of a displacement, sharpness: against what they are defined by."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm, logm
from scipy.ndimage import gaussian_filter

from qsmxt.algorithms.template import inverse_displacement, mean_affine, positions, sampled, sharpened, sharpness
from qsmxt.errors import InputError


def _affines(count=5, seed=0):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        log = np.zeros((4, 4))
        log[:3, :3], log[:3, 3] = rng.normal(0, 0.1, (3, 3)), rng.normal(0, 8, 3)
        out.append(expm(log))
    return out


def test_centred_affines_have_their_mean_at_the_identity():
    matrices, weights = _affines(), [1, 2, 1, 0.5, 1]
    mean = mean_affine(matrices, weights)
    centred = [np.real(logm(m @ np.linalg.inv(mean))) for m in matrices]
    total = sum(w * log for w, log in zip(weights, centred, strict=True))
    np.testing.assert_allclose(total, 0, atol=1e-10)


def test_mean_does_not_depend_on_the_order_or_on_a_common_map():
    matrices, common = _affines(), _affines(1, seed=9)[0]
    mean = mean_affine(matrices)
    np.testing.assert_allclose(mean_affine(matrices[::-1]), mean, atol=1e-9)
    np.testing.assert_allclose(mean_affine([m @ common for m in matrices]), mean @ common, atol=1e-9)
    np.testing.assert_allclose(mean_affine([common @ m for m in matrices]), common @ mean, atol=1e-9)


def test_half_a_turn_has_no_mean():
    with pytest.raises(InputError, match="half a turn or a mirror"):
        mean_affine([np.eye(4), np.diag([-1.0, 1.0, 1.0, 1.0])])
    with pytest.raises(InputError, match="found none"):
        mean_affine([])


def _field(shape, seed, size=1.0):
    rng = np.random.default_rng(seed)
    field = np.stack([gaussian_filter(rng.normal(size=shape), 5) for _ in range(3)], -1)
    return field * size / field.std()


def test_displacement_and_its_inverse_cancel():
    field = _field((30, 32, 28), 0)
    inverse = inverse_displacement(field)
    there = positions(field.shape[:3]) + inverse
    rest = there + sampled(field, there) - positions(field.shape[:3])
    assert np.abs(rest).max() < 2e-4


def test_maps_after_the_inverse_of_their_mean_displace_nothing_on_average():
    fields = [_field((24, 24, 24), seed) for seed in range(4)]
    psi = positions((24, 24, 24)) + inverse_displacement(np.mean(fields, axis=0))
    moved = [psi + sampled(field, psi) - positions((24, 24, 24)) for field in fields]
    assert np.abs(np.mean(moved, axis=0)).max() < 2e-4
    assert np.abs(moved[0]).max() > 0.5


def test_folding_is_refused():
    x = positions((20, 4, 4))
    field = np.zeros((20, 4, 4, 3))
    field[..., 0] = 8 * np.sin(x[..., 0] * 2)
    with pytest.raises(InputError, match="folds"):
        inverse_displacement(field)


def test_blurring_lowers_sharpness_and_scaling_does_not_change_it():
    volume = gaussian_filter(np.random.default_rng(0).normal(size=(32, 32, 32)), 2).astype(np.float32)
    mask = np.zeros(volume.shape, bool)
    mask[4:-4, 4:-4, 4:-4] = True
    first = sharpness(volume, mask, (1.0, 1.0, 1.0))
    assert sharpness(gaussian_filter(volume, 2), mask, (1.0, 1.0, 1.0)) < 0.8 * first
    assert sharpness(100 * volume, mask, (1.0, 1.0, 1.0)) == pytest.approx(first, rel=1e-5)
    assert sharpness(volume, mask & False, (1.0, 1.0, 1.0)) == 0


def test_unsharp_masking_keeps_the_mean_and_raises_sharpness():
    volume = gaussian_filter(np.random.default_rng(1).normal(size=(32, 32, 32)), 3, mode="wrap").astype(np.float32) + 5
    mask = np.ones(volume.shape, bool)
    sharp = sharpened(volume, 1.0)
    assert sharp.mean() == pytest.approx(volume.mean(), abs=1e-3)
    assert sharpness(sharp, mask, (1.0, 1.0, 1.0)) > 1.02 * sharpness(volume, mask, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(sharpened(volume, 0.0), volume)


def test_sharpening_takes_the_rim_of_a_mask_for_no_edge():
    mask = np.zeros((12, 12, 12), bool)
    mask[3:9, 3:9, 3:9] = True
    even = np.where(mask, 0.1, 0).astype(np.float32)
    np.testing.assert_allclose(sharpened(even, 0.5, mask=mask), even, atol=1e-7)
    assert sharpened(even, 0.5).max() > 0.11, "without a mask it is one"
