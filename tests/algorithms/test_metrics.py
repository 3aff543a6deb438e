"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import metrics
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SHAPE = (12, 13, 14)


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, SHAPE).astype(np.float32)


@pytest.fixture
def mask() -> np.ndarray:
    out = np.zeros(SHAPE, dtype=bool)
    out[1:-1, 2:-2, 1:-2] = True
    return out


def test_nrmse_of_a_scaled_and_shifted_map_is_the_scale_error(truth, mask):
    assert metrics.nrmse(0.7 * truth + 5, truth, mask) == pytest.approx(30.0, abs=1e-3)
    assert metrics.nrmse(np.zeros_like(truth), truth, mask) == pytest.approx(100.0)


def test_nrmse_of_independent_noise_adds_in_quadrature():
    rng = np.random.default_rng(1)
    t, e = rng.normal(size=(2, 40, 40, 40))
    assert metrics.nrmse(t + 0.5 * e, t, np.ones(t.shape, bool)) == pytest.approx(50.0, rel=0.02)


def test_nrmse_ignores_voxels_outside_the_mask(truth, mask):
    estimate = np.where(mask, truth, 1e6)
    assert metrics.nrmse(estimate, truth, mask) == 0


def test_detrending_removes_scale_and_offset_but_no_noise(truth, mask):
    assert metrics.detrended_nrmse(0.4 * truth - 2, truth, mask) == pytest.approx(0.0, abs=1e-3)
    rng = np.random.default_rng(2)
    t, e = rng.normal(size=(2, 40, 40, 40))
    full = np.ones(t.shape, bool)
    # x = t/2 + e/10: detrended error is (e/10) / (1/2) = 20 %
    assert metrics.detrended_nrmse(0.5 * t + 0.1 * e, t, full) == pytest.approx(20.0, rel=0.02)


def test_region_scores_see_their_region_only(truth, mask):
    labels = np.full(SHAPE, 8, dtype=np.uint8)
    labels[4:8, 4:8, 4:8] = 1
    labels[2, 3, 2:4] = 11
    estimate = truth.copy()
    estimate[labels == 1] = 0.1 * np.random.default_rng(3).normal(size=64)
    assert metrics.tissue_nrmse(estimate, truth, labels, mask) == pytest.approx(0, abs=1e-3)
    assert metrics.deep_grey_nrmse(estimate, truth, labels, mask) > 50
    changed = truth.copy()
    changed[3, 4, 4] += 0.3  # a diagonal neighbour of the vein
    assert metrics.blood_nrmse(changed, truth, labels, mask) > 10


def test_slope_of_regional_means():
    labels = np.zeros((6, 5, 5), dtype=np.uint8)
    for index in range(1, 7):
        labels[index - 1] = index
    truth = 0.02 * labels.astype(np.float32)
    noise = np.zeros_like(truth)
    noise[:, ::2] = 0.5
    noise -= noise.mean(axis=(1, 2), keepdims=True)  # leaves the means alone
    mask = np.ones(truth.shape, bool)
    assert metrics.slope(0.8 * truth + 0.3 + noise, truth, labels, mask) == pytest.approx(0.8, abs=1e-5)
    assert metrics.nonlinearity(1.3 * truth, truth, labels, mask) == pytest.approx(0.3, abs=1e-5)
    mask[2:] = False  # two regions are left
    assert metrics.slope(2 * truth, truth, labels, mask) == pytest.approx(2.0, abs=1e-5)
    mask[1:] = False
    with pytest.raises(InputError, match="two of the regions"):
        metrics.slope(truth, truth, labels, mask)


def test_region_means_are_nan_where_a_region_is_absent():
    labels = np.array([[[1, 1, 2, 3]]])
    mask = np.array([[[True, True, True, False]]])
    found = metrics.region_means(np.array([[[1.0, 3.0, 5.0, 7.0]]]), labels, (1, 2, 3), mask)
    np.testing.assert_array_equal(found, [2.0, 5.0, np.nan])


def test_xsim_is_one_for_equal_and_closed_form_for_constants(truth, mask):
    assert metrics.xsim(truth, truth, mask) == pytest.approx(1.0)
    full = np.ones(SHAPE, dtype=bool)
    a, b = 0.02, 0.05  # constants: only the luminance term is left
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert metrics.xsim(np.full(SHAPE, a), np.full(SHAPE, b), full) == pytest.approx(expected, rel=1e-6)


def test_xsim_window_is_five_voxels_and_cut_at_the_border():
    truth = np.zeros((9, 1, 1))
    truth[4] = 0.1
    full = np.ones(truth.shape, bool)
    zero = np.zeros_like(truth)
    # windows that contain voxel 4: centres 2..6 with 5 samples; the others compare 0 with 0
    mean, spread = 0.02, 0.01 / 5 - 0.02**2
    inside = 1e-4 * 1e-6 / ((mean**2 + 1e-4) * (spread + 1e-6))
    assert metrics.xsim(zero, truth, full) == pytest.approx((5 * inside + 4) / 9, rel=1e-9)
    corner = np.zeros((9, 1, 1))
    corner[0] = 0.1  # seen by the windows centred on 0, 1, 2 with 3, 4, 5 samples
    seen = [1e-10 / (((0.1 / n) ** 2 + 1e-4) * (0.01 / n - (0.1 / n) ** 2 + 1e-6)) for n in (3, 4, 5)]
    assert metrics.xsim(zero, corner, full) == pytest.approx((sum(seen) + 6) / 9, rel=1e-9)


def test_hfen_scales_and_ignores_the_outside(truth, mask):
    assert metrics.hfen(0.75 * truth, truth, mask) == pytest.approx(25.0, abs=1e-3)
    assert metrics.hfen(np.where(mask, truth, 50.0), truth, mask) == 0


def test_hfen_of_two_gaussians_is_the_closed_form():
    axis = np.arange(48) - 23.5
    square = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    sharp, broad = (np.exp(-square / (2 * width**2)) for width in (1.5, 5.0))

    def norm(width):  # of the Laplacian of exp(-r^2 / 2 width^2) smoothed by 1.5 voxels
        smooth = np.hypot(width, 1.5)
        return (width / smooth) ** 3 / np.sqrt(smooth)

    full = np.ones(square.shape, bool)
    expected = 100 * 0.1 * norm(5.0) / norm(1.5)
    assert metrics.hfen(sharp + 0.1 * broad, sharp, full) == pytest.approx(expected, rel=0.01)


def test_moment_is_susceptibility_times_volume():
    grid = Grid((4, 4, 4), (1.0, 2.0, 3.0))
    region = np.zeros(grid.shape, bool)
    region[1:3, 1, 1] = True
    truth = np.where(region, -3.0, 0.0)
    assert metrics.moment(truth, region, grid) == pytest.approx(-36.0)
    assert metrics.moment_deviation(0.75 * truth, truth, region, grid) == pytest.approx(0.25)


def test_streaking_is_the_noise_of_the_shell_over_the_source():
    shape = (31, 31, 31)
    rng = np.random.default_rng(5)
    region = np.zeros(shape, bool)
    region[15, 15, 15] = True
    truth = rng.normal(0, 0.05, shape)
    truth[region] = -2.0
    noise = rng.normal(0, 0.1, shape)
    full = np.ones(shape, bool)
    assert metrics.streaking(0.5 * truth + 0.3 + noise, truth, region, full) == pytest.approx(0.05, rel=0.05)
    near = np.zeros(shape)
    near[12:19, 12:19, 12:19] = noise[12:19, 12:19, 12:19]  # within 3 voxels of the source: not the shell
    assert metrics.streaking(truth + near, truth, region, full) == pytest.approx(0, abs=1e-9)


def test_wrong_wraps_counts_turns_other_than_the_global_one(mask):
    truth = np.random.default_rng(6).uniform(-20, 20, SHAPE)
    unwrapped = truth + 4 * np.pi + 0.5
    inside = np.argwhere(mask)
    for voxel in inside[:7]:
        unwrapped[tuple(voxel)] -= 2 * np.pi
    assert metrics.wrong_wraps(unwrapped, truth, mask) == pytest.approx(7 / len(inside))
    both = np.stack([unwrapped, truth]), np.stack([truth, truth])
    assert metrics.wrong_wraps(*both, mask) == pytest.approx(3.5 / len(inside))


def test_dice_coverage_and_core():
    first, second = np.zeros((2, 10, 10, 10), dtype=bool)
    first[:4] = True
    second[2:6] = True
    assert metrics.dice(first, second) == pytest.approx(0.5)
    assert metrics.dice(first, ~first) == 0
    assert metrics.dice(first & False, second & False) == 1
    assert metrics.coverage(first, second) == pytest.approx(0.5)
    assert metrics.core(np.ones((11, 13, 15), bool), 2).sum() == 7 * 9 * 11


def test_edge_profile_finds_an_error_of_the_rim():
    grid = Grid((20, 20, 20), (1.0, 1.0, 2.0))
    mask = np.zeros(grid.shape, bool)
    mask[3:17, 3:17, :] = True
    truth = np.random.default_rng(7).normal(size=grid.shape)
    truth[mask] -= truth[mask].mean()
    estimate = truth.copy()
    rim = mask & ~metrics.core(mask, 1)
    centred = truth[rim] - truth[rim].mean()  # keeps the mean over the mask
    estimate[rim] += 0.5 * centred
    profile = metrics.edge_profile(estimate, truth, mask, grid, shells=(0, 1, 2, np.inf))
    assert profile[(0.0, 1.0)] == pytest.approx(50.0, rel=0.02)
    assert profile[(2.0, np.inf)] == pytest.approx(0.0, abs=1e-9)


def test_edge_profile_measures_millimetres():
    grid = Grid((9, 9, 9), (1.0, 3.0, 3.0))
    mask = np.ones(grid.shape, bool)
    truth = np.random.default_rng(8).normal(size=grid.shape)
    profile = metrics.edge_profile(truth, truth, mask, grid, shells=(0, 1, 2, 3, 4, 5, np.inf))
    assert list(profile) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]  # deepest voxel: 4.5 mm along x


def test_evaluate_of_the_truth_is_perfect(truth, mask):
    labels = np.random.default_rng(9).integers(1, 12, SHAPE)
    scores = metrics.evaluate(truth, truth, mask, labels, brain=mask)
    perfect = {"xsim": 1.0, "deep_grey_slope": 1.0, "coverage": 1.0}
    for name, value in scores.items():
        assert value == pytest.approx(perfect.get(name, 0.0), abs=1e-6), name
    assert "blood_nrmse" in scores


@pytest.mark.parametrize("broken", ["empty", "constant", "nan", "shape"])
def test_unusable_input_is_refused(truth, mask, broken):
    estimate = truth.copy()
    match broken:
        case "empty":
            mask, message = mask & False, "empty mask"
        case "constant":
            truth, message = np.ones_like(truth), "a constant"
        case "nan":
            estimate[5, 5, 5], message = np.nan, "estimate: expected finite"
        case _:
            estimate, message = estimate[1:], "equal shapes"
    with pytest.raises(InputError, match=message):
        metrics.nrmse(estimate, truth, mask)
