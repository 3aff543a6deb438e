"""Coils whose offsets the smoothing reproduces exactly, against the plain sum with the known offsets."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.combination.aspire import aspire
from qsmxt.algorithms.combination.mcpc3ds import mcpc3ds
from qsmxt.constants import rad_per_ppm
from qsmxt.geometry import Grid

GRID = Grid((14, 16, 12), (4.0, 4.0, 4.0))


@pytest.mark.parametrize(("method", "times"), [(aspire, (0.006, 0.012, 0.018)), (mcpc3ds, (0.004, 0.010, 0.017))])
def test_combination_is_the_sum_without_the_known_offsets(method, times):
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID.shape], indexing="ij")
    mask = x * x + y * y + z * z < 0.9
    field = 0.1 * np.sin(2 * x) * y - 0.05 * z
    offsets = [0.3 + 0.8 * x - 0.5 * y * z, -1.0 + 0.6 * y + 0.4 * x * x, 0.2 - 0.7 * z + 0.3 * x * y]
    sizes = [np.exp(s * x - 0.3 * y) for s in (-0.5, 0.2, 0.6)]
    signal = np.zeros((3, 3, *GRID.shape), dtype=complex)
    expected = np.zeros((3, *GRID.shape), dtype=complex)
    for c, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        for e, t in enumerate(times):
            m, evolved = size * np.exp(-20 * t), rad_per_ppm(3.0, t) * field
            signal[c, e] = mask * m * np.exp(1j * (offset + evolved))
            expected[e] += m**2 * np.exp(1j * evolved)
    phase, magnitude = method(
        np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32), np.array(times), GRID, mask=mask
    )
    error = np.angle(np.exp(1j * (phase - np.angle(expected))))[:, mask]
    assert np.abs(error - np.median(error)).max() < 5e-3  # a turn of the evolution is common to all voxels
    np.testing.assert_allclose(magnitude[:, mask], np.sqrt(np.abs(expected))[:, mask], rtol=1e-4)
