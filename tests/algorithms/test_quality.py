"""Phase quality: bounds, what raises it and what lowers it."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.quality import phase_quality
from qsmxt.errors import ParameterError
from qsmxt.geometry import Grid

SHAPE = (24, 22, 26)
GRID = Grid(SHAPE)
TIMES = np.array([0.004, 0.009])


@pytest.fixture(scope="module")
def echoes() -> tuple[np.ndarray, np.ndarray]:
    """Two echoes: a linear phase in the lower half, noise in the upper half."""
    rng = np.random.default_rng(0)
    x, y, z = np.indices(SHAPE)
    phase = (0.3 * x - 0.2 * y + 0.1 * z)[None] * (TIMES / TIMES[0])[:, None, None, None]
    phase = np.where(x < 12, phase, rng.uniform(-np.pi, np.pi, phase.shape))
    return np.angle(np.exp(1j * phase)).astype(np.float32), np.ones_like(phase, dtype=np.float32)


def test_tissue_and_noise_are_told_apart(echoes):
    quality = phase_quality(*echoes, TIMES, GRID)
    inner = (slice(1, -1),) * 2
    assert quality.min() >= 0 and quality.max() <= 1
    assert quality[1:11][:, inner[0], inner[1]].min() > 0.75
    assert np.quantile(quality[13:-1][:, inner[0], inner[1]], 0.95) < 0.6


def test_a_uniform_phase_has_quality_one_and_the_border_loses_a_sixth_for_every_absent_edge():
    phase = np.zeros((1, 6, 6, 6), np.float32)
    quality = phase_quality(phase, phase + 1, np.array([0.01]), Grid((6, 6, 6)), weights="romeo2")
    np.testing.assert_allclose(quality[1:-1, 1:-1, 1:-1], 1, atol=1e-6)
    assert quality[0, 3, 3] == pytest.approx(5 / 6)
    assert quality[0, 0, 0] == pytest.approx(1 / 2)


def test_quality_is_zero_outside_the_mask_and_where_the_phase_is_not_finite(echoes):
    phase = echoes[0].copy()
    phase[0, 5, 5, 5] = np.nan
    mask = np.ones(SHAPE, bool)
    mask[:3] = False
    quality = phase_quality(phase, None, TIMES, GRID, weights="romeo", mask=mask)
    assert quality[5, 5, 5] == 0
    assert not quality[:3].any()
    assert np.isfinite(quality).all()
    assert quality[5, 5, 6] > 0.5


def test_the_last_echo_uses_the_one_before_it(echoes):
    quality = phase_quality(*echoes, TIMES, GRID, weights="romeo3", echo=2)
    assert quality[1:11, 1:-1, 1:-1].min() > 0.6
    with pytest.raises(ParameterError, match="expected an echo from 1 to 2"):
        phase_quality(*echoes, TIMES, GRID, echo=3)
    with pytest.raises(ParameterError, match="weights"):
        phase_quality(*echoes, TIMES, GRID, weights="best")
