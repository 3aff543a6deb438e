"""Reliable phase: thresholds, fit quality, ceiling, opening, largest piece."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.quality import CEILING, QualityParameters, quality, reliable
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

GRID = Grid((20, 20, 20))


def block() -> np.ndarray:
    """High quality in a block of 12 voxels, low elsewhere."""
    phase_quality = np.full(GRID.shape, 0.15, dtype=np.float32)
    phase_quality[4:16, 4:16, 4:16] = 0.9
    return phase_quality


def test_the_reliable_block_without_its_hole():
    phase_quality = block()
    phase_quality[8:11, 8:11, 8:11] = 0.2
    mask = quality(phase_quality, GRID, QualityParameters(opening=0.0))
    np.testing.assert_array_equal(mask, phase_quality > 0.5)


def test_a_bad_fit_is_left_out():
    fit = np.ones(GRID.shape, dtype=np.float32)
    fit[4:7] = 0.85
    mask = quality(block(), GRID, QualityParameters(opening=0.0), fit_quality=fit)
    assert mask.sum() == 9 * 12 * 12
    assert quality(block(), GRID, QualityParameters(opening=0.0, fit=0.8), fit_quality=fit).sum() == 12**3


def test_specks_and_smaller_pieces_go():
    phase_quality = block()
    phase_quality[1, 1, 1] = 0.9
    phase_quality[17:20, 17:20, 17:20] = 0.9
    phase_quality[16:19, 9, 9] = 0.9  # a spike, of which the opening leaves the foot
    mask = quality(phase_quality, GRID)
    assert mask.sum() <= 12**3
    assert not mask[17:].any() and not mask[1].any()
    assert mask[5:15, 5:15, 5:15].all()


def test_without_air_the_ceiling_holds():
    tissue = np.random.default_rng(0).uniform(0.65, 0.95, GRID.shape).astype(np.float32)
    assert quality(tissue, GRID, QualityParameters(opening=0.0)).all()
    tissue[3, 3, 3] = CEILING - 0.01
    assert not quality(tissue, GRID, QualityParameters(opening=0.0))[3, 3, 3]


def test_only_within_the_given_mask():
    within = np.zeros(GRID.shape, dtype=bool)
    within[:10] = True
    assert reliable(within, block(), None, GRID, QualityParameters(opening=0.0)).sum() == 6 * 12 * 12


def test_no_contrast_is_refused():
    with pytest.raises(InputError, match="contrast"):
        quality(np.full(GRID.shape, 0.5, dtype=np.float32), GRID)
