"""Laplacian of wrapped phase, and the map from it."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.inversion.tgv_phase import TGVPhaseParameters, field_laplacian, tgv_phase
from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError

TIMES = np.array([0.005, 0.012, 0.018])


def _wrapped(field, times, offset=0.0):
    phase = np.stack([rad_per_ppm(3.0, t) * field + offset for t in times])
    return np.angle(np.exp(1j * phase)).astype(np.float32)


@pytest.mark.parametrize("times", [TIMES, TIMES[:1]])
def test_laplacian_of_a_polynomial_survives_wrapping(spheres, times):
    x, y, z = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in spheres.grid.shape], indexing="ij")
    field = 0.012 * (x - 20) ** 2 - 0.003 * (y - 22) * (z - 18) + 0.006 * (z - 18) ** 2
    wrapped = _wrapped(field, times)
    assert np.ptp(rad_per_ppm(3.0, times[0]) * field[spheres.mask]) > 2 * np.pi
    laplacian = field_laplacian(wrapped, times, 3.0, spheres.mask, spheres.grid)
    inner = spheres.mask.copy()
    for axis in range(3):
        inner &= np.roll(spheres.mask, 1, axis) & np.roll(spheres.mask, -1, axis)
    np.testing.assert_allclose(laplacian[inner], (0.024 + 0.012) / 4, atol=4e-5)


def test_a_phase_offset_drops_out_of_several_echoes(spheres):
    x = np.arange(spheres.grid.shape[0])[:, None, None]
    offset = 0.02 * (x - 20.0) ** 2
    plain = field_laplacian(_wrapped(spheres.field, TIMES), TIMES, 3.0, spheres.mask, spheres.grid)
    shifted = field_laplacian(_wrapped(spheres.field, TIMES, offset), TIMES, 3.0, spheres.mask, spheres.grid)
    np.testing.assert_allclose(plain, shifted, atol=3e-5)


def test_order_of_echoes_and_absence_of_magnitude_do_not_matter(spheres):
    phase = _wrapped(spheres.field, TIMES)
    even = np.ones_like(phase)
    one = field_laplacian(phase, TIMES, 3.0, spheres.mask, spheres.grid)
    two = field_laplacian(phase[::-1], TIMES[::-1], 3.0, spheres.mask, spheres.grid, even)
    np.testing.assert_allclose(one, two, atol=1e-7)


def test_map_from_wrapped_phase_with_background(spheres):
    x, y, z = np.meshgrid(*[np.arange(n, dtype=np.float64) - n / 2 for n in spheres.grid.shape], indexing="ij")
    total = spheres.field + 0.02 * x - 0.01 * y * z / 5 + 0.002 * (x * x - z * z)
    chi = tgv_phase(_wrapped(total, TIMES), spheres.mask, TIMES, 3.0, spheres.grid, TGVPhaseParameters(erosions=1))
    kept = chi != 0
    assert np.corrcoef(spheres.chi[kept], chi[kept])[0, 1] > 0.97
    assert chi[spheres.chi > 0.19].mean() == pytest.approx(0.2, rel=0.25)


def test_equal_echo_times_are_refused(spheres):
    phase = _wrapped(spheres.field, TIMES)
    with pytest.raises(InputError, match="echo_times"):
        tgv_phase(phase, spheres.mask, np.array([0.005, 0.005, 0.01]), 3.0, spheres.grid)


def test_a_mask_that_erosion_empties_is_refused(spheres):
    with pytest.raises(InputError, match="erosions"):
        tgv_phase(
            _wrapped(spheres.field, TIMES), spheres.mask, TIMES, 3.0, spheres.grid, TGVPhaseParameters(erosions=40)
        )
