"""Quality metrics have the values that their definitions give on known images."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import fourier
from qsmxt.algorithms.kernels import dipole
from qsmxt.algorithms.morphology import erode
from qsmxt.algorithms.statistics.quality import (
    CONE,
    cone_ratio,
    field_residual,
    ghost_ratio,
    measure,
    noise,
    rim_ratio,
    signal_to_noise,
    streaking,
    unreliable_share,
)
from qsmxt.algorithms.statistics.quality_metrics import METRICS, deep_grey_contrast, metric
from qsmxt.geometry import Grid

GRID = Grid((40, 44, 36), (1.0, 1.0, 1.5))


def _ball(grid, radius):
    index = np.indices(grid.shape)
    return sum(((i - n // 2) * v) ** 2 for i, n, v in zip(index, grid.shape, grid.voxel_size, strict=True)) <= radius**2


def _noise(shape=GRID.shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_noise_is_found_below_ramps_and_walls_and_signal_over_it():
    x, y, z = np.indices(GRID.shape)
    anatomy = 300.0 + 5.0 * x - 3.0 * y * z / 20 + 200.0 * (z > 18) + 100.0 * (x * y > 300)
    mask = _ball(GRID, 16)
    assert noise(anatomy + 4.0 * _noise(), mask) == pytest.approx(4.0, rel=0.05)
    assert noise(anatomy, mask) == pytest.approx(0.0, abs=1e-9)
    flat = np.full(GRID.shape, 100.0) + 4.0 * _noise()
    assert signal_to_noise(flat, mask) == pytest.approx(25.0, rel=0.05)
    assert signal_to_noise(anatomy, mask) is None


def test_noise_of_one_slice():
    slab = 10.0 + 2.0 * _noise((64, 64, 1))
    assert noise(slab, np.ones(slab.shape, bool)) == pytest.approx(2.0, rel=0.06)
    assert noise(slab, np.indices(slab.shape)[0] < 1) == pytest.approx(2.0, rel=0.4)
    assert noise(slab[:4, :4], np.ones((4, 4, 1), bool)) is None, "too few voxels"


def test_unreliable_share_is_a_share_of_the_mask():
    mask = np.zeros(GRID.shape, bool)
    mask[:20] = True
    reliable = np.zeros(GRID.shape, bool)
    reliable[5:30] = True
    assert unreliable_share(reliable, mask) == pytest.approx(0.25)


def test_residual_vanishes_for_the_field_of_the_map_whatever_its_reference():
    mask = _ball(GRID, 14)
    wide = Grid(tuple(2 * n for n in GRID.shape), GRID.voxel_size)
    chi = np.zeros(wide.shape, np.float32)
    inner = tuple(slice(n // 2, n // 2 + n) for n in GRID.shape)
    chi[inner][_ball(GRID, 5)] = 0.1
    field = fourier.filtered(chi, dipole(wide))[inner]
    shifted = np.where(mask, chi[inner] + np.float32(0.3), 0).astype(np.float32)
    assert field_residual(field, chi[inner], mask, GRID) < 0.02
    assert field_residual(field, shifted, mask, GRID) < 0.02
    assert field_residual(field, 0.5 * chi[inner], mask, GRID) == pytest.approx(0.5, abs=0.02)
    assert field_residual(field, np.zeros_like(field), mask, GRID) == pytest.approx(1.0, abs=0.02)
    assert field_residual(np.zeros_like(field), chi[inner], mask, GRID) is None


@pytest.mark.parametrize("level", [0.0, 1.0, 4.0])
def test_cone_ratio_is_the_ratio_of_power(level):
    radial = sum(k * k for k in fourier.frequencies(GRID))
    power = np.exp(-20 * radial) * np.where(np.abs(dipole(GRID)) < CONE, level, 1.0)
    assert cone_ratio(np.sqrt(power).astype(np.complex64), GRID, shells=200) == pytest.approx(level, rel=0.05)


def test_streaking_of_isotropic_noise_is_one_and_of_direct_inversion_more():
    grid, mask = Grid((48, 48, 48)), np.ones((48, 48, 48), bool)
    white = _noise(grid.shape)
    assert streaking(white, mask, grid) == pytest.approx(1.0, abs=0.05)
    kernel = dipole(grid)
    inverse = np.where(np.abs(kernel) < 0.02, 50.0, 1 / np.where(np.abs(kernel) < 0.02, 1, kernel)).astype(np.float32)
    assert streaking(fourier.filtered(white, inverse), mask, grid) > 10
    kept = (np.abs(kernel) > CONE).astype(np.float32)
    assert streaking(fourier.filtered(white, kept), mask, grid) < 0.25


def test_streaking_ignores_reference_and_scale():
    mask = _ball(GRID, 15)
    chi = _noise() * mask
    assert streaking(3 * (chi + 0.7), mask, GRID) == pytest.approx(streaking(chi, mask, GRID), rel=1e-3)


def test_rim_against_inside():
    mask = _ball(GRID, 15)
    signs = np.indices(GRID.shape).sum(axis=0) % 3 - 1.0
    core = erode(mask, GRID, 3.0)
    assert rim_ratio(np.where(core, 0.01, 0.03) * signs, mask, GRID) == pytest.approx(3.0, rel=0.02)
    assert rim_ratio(0.01 * signs, mask, GRID) == pytest.approx(1.0, rel=0.02)
    assert rim_ratio(signs, _ball(GRID, 2), GRID) is None


def test_ghost_stands_at_half_the_field_of_view():
    grid = Grid((48, 140, 24), (2.0, 2.0, 2.0))
    mask = _ball(grid, 20)
    level = np.full(grid.shape, 5.0) + 0.1 * _noise(grid.shape)
    head = level + 500.0 * mask
    assert ghost_ratio(head, mask, grid, 1) == pytest.approx(1.0, abs=0.01)
    ghosted = head + 10.0 * np.roll(mask, 70, 1)
    assert ghost_ratio(ghosted, mask, grid, 1) == pytest.approx(3.0, abs=0.03)
    assert ghost_ratio(500.0 * mask, mask, grid, 1) is None, "blanked background"


def test_deep_grey_contrast_is_a_difference_of_medians():
    mask, nuclei = _ball(GRID, 15), _ball(GRID, 5)
    assert deep_grey_contrast(np.where(nuclei, 0.09, 0.01), nuclei, mask) == pytest.approx(0.08)
    assert deep_grey_contrast(np.zeros(GRID.shape), np.zeros(GRID.shape, bool), mask) is None


def test_grades_follow_the_declared_ranges():
    snr, spread = metric("snr"), metric("chi_sd")
    assert [snr.grade(v) for v in (50.0, 20.0, 10.0, 3.0, None, float("nan"))] == [
        "good", "good", "look", "poor", "no range", "no range"]  # fmt: skip
    assert snr.advice(3.0) == snr.low and snr.advice(30.0) == ""
    assert spread.advice(0.001) == spread.low and spread.advice(1.0) == spread.high


def test_every_metric_is_explained_and_its_good_range_lies_in_the_fair_one():
    assert len({entry.key for entry in METRICS}) == len(METRICS)
    for entry in METRICS:
        assert entry.meaning and entry.unit
        for side, sign in ((0, 1), (1, -1)):
            good, fair = entry.good[side], entry.fair[side]
            assert (good is None) == (fair is None)
            if good is not None:
                assert sign * fair <= sign * good
                assert (entry.low, entry.high)[side] or entry.key == "mask_pieces"


def test_measure_gives_what_the_arrays_allow_and_leaves_them_alone():
    mask = _ball(GRID, 15)
    magnitude = np.full(GRID.shape, 100.0, np.float32) + 2 * _noise()
    chi = (0.03 * _noise(seed=1) + 0.01) * mask
    arrays = {"mask": mask, "magnitude": magnitude, "chi": chi, "field_noise": np.full(GRID.shape, 0.004)}
    before = {name: array.copy() for name, array in arrays.items()}
    found = measure(arrays, GRID)
    assert list(found) == [entry.key for entry in METRICS if entry.key in found]
    assert found["snr"] == pytest.approx(50, rel=0.05) and found["field_noise"] == pytest.approx(0.004)
    assert found["chi_sd"] == pytest.approx(0.03, rel=0.05)
    assert found["reference_offset"] == pytest.approx(0.01, abs=0.002)
    assert found["mask_volume"] == pytest.approx(4 / 3 * np.pi * 15**3 / 1000, rel=0.03)
    assert found["mask_pieces"] == 1
    assert not found.keys() & {"field_residual", "csf_sd", "unreliable_share", "ghost_ratio", "phase_coherence"}
    assert all(np.array_equal(arrays[name], before[name]) for name in arrays)
    assert measure({"mask": np.zeros(GRID.shape, bool)}, GRID) == {}
