"""Referencing: constants drop out, the right voxels count, the offset is reported."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.referencing.csf import csf
from qsmxt.algorithms.referencing.mean import MeanParameters, mean
from qsmxt.algorithms.referencing.none import none
from qsmxt.algorithms.referencing.offset import offset_of
from qsmxt.algorithms.referencing.region import RegionParameters, region
from qsmxt.errors import InputError, ParameterError
from qsmxt.geometry import Grid

GRID = Grid((12, 10, 8))


@pytest.fixture
def chi() -> np.ndarray:
    return np.random.default_rng(0).normal(0.02, 0.03, GRID.shape).astype(np.float32)


@pytest.fixture
def mask() -> np.ndarray:
    out = np.zeros(GRID.shape, dtype=bool)
    out[2:10, 2:8, 1:7] = True
    return out


LABELS = np.zeros(GRID.shape, dtype=np.int32)
LABELS[3:6, 3:6, 2:5] = 7
LABELS[7:9, 3:6, 2:5] = 9
LABELS[0] = 7


def _referenced(how: str, chi: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The map, what was subtracted, and the region whose mean becomes zero."""
    if how == "mean":
        return *mean(chi, mask, GRID), mask
    if how == "csf":
        return *csf(chi, mask, LABELS == 9, GRID), (LABELS == 9) & mask
    return *region(chi, mask, LABELS, GRID, RegionParameters(labels=(7, 9))), np.isin(LABELS, (7, 9)) & mask


@pytest.mark.parametrize("how", ["mean", "csf", "region"])
def test_adding_a_constant_changes_nothing(how, chi, mask):
    one, offset, _ = _referenced(how, chi, mask)
    other, moved, _ = _referenced(how, chi + np.float32(5), mask)
    np.testing.assert_allclose(one, other, atol=2e-6)
    assert moved - offset == pytest.approx(5, abs=2e-6)


@pytest.mark.parametrize("how", ["mean", "csf", "region"])
def test_the_offset_is_what_was_subtracted_and_the_mean_of_the_region(how, chi, mask):
    found, offset, where = _referenced(how, chi, mask)
    np.testing.assert_array_equal(found[mask], chi[mask] - offset)
    kept = np.sort(chi[where])
    low, high = np.percentile(kept, (1, 99))
    assert offset == pytest.approx(kept[(kept >= low) & (kept <= high)].mean(), abs=1e-7)


@pytest.mark.parametrize("how", ["mean", "csf", "region"])
def test_the_region_has_mean_zero_afterwards(how, chi, mask):
    found, _, where = _referenced(how, chi, mask)
    assert offset_of(found, where).mean == pytest.approx(0, abs=1e-6)
    assert not found[~mask].any()
    assert found[mask].std() == pytest.approx(chi[mask].std(), rel=1e-5)


def test_none_keeps_the_map_in_the_mask(chi, mask):
    found, offset = none(chi, mask, GRID)
    np.testing.assert_array_equal(found, np.where(mask, chi, 0))
    assert offset == 0


def test_offset_reports_trimmed_statistics():
    values = np.concatenate([np.arange(100.0) / 1000, [50.0, -50.0]]).reshape(1, 1, -1)
    offset = offset_of(values, np.ones(values.shape, bool), percentiles=(1, 99))
    kept = np.arange(1, 99) / 1000
    assert offset.voxels == 98
    assert offset.mean == pytest.approx(kept.mean())
    assert offset.sd == pytest.approx(kept.std())


def test_strong_sources_do_not_count(chi, mask):
    spiked = chi.copy()
    spiked[4, 4, 4] = 100
    plain, _ = mean(chi, mask, GRID, MeanParameters((0, 100)))
    found, _ = mean(spiked, mask, GRID, MeanParameters((0, 100)))
    assert abs(found[5, 5, 5] - plain[5, 5, 5]) < 3e-4


def test_a_legitimate_zero_counts(mask):
    chi = np.zeros(GRID.shape, dtype=np.float32)
    chi[2:6] = 0.1
    assert mean(chi, mask, GRID)[0][9, 4, 4] == pytest.approx(-0.05, abs=1e-6)


def test_regions_outside_the_mask_are_refused(chi, mask):
    with pytest.raises(InputError, match="csf_mask"):
        csf(chi, mask, np.roll(mask, 0) & False | (np.indices(GRID.shape)[0] == 0), GRID)
    with pytest.raises(InputError, match="labels 5"):
        region(chi, mask, LABELS, GRID, RegionParameters(labels=(5,)))
    with pytest.raises(ParameterError, match="labels"):
        region(chi, mask, LABELS, GRID)
