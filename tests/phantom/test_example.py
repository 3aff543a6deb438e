"""The arrays of the small phantom belong together."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.constants import rad_per_ppm
from qsmxt.phantom.example import NOISE, SPHERES, phantom
from qsmxt.phantom.shapes import ellipsoid, sphere_field

HEAD = phantom()


def test_an_array_may_be_changed_without_changing_the_phantom():
    HEAD.chi[:] = 1
    HEAD.mask[:] = False
    assert HEAD.chi.max() == np.float32(0.15) and HEAD.mask.any()
    with pytest.raises(AttributeError, match="no array 'phase'"):
        _ = HEAD.phase


def test_the_local_field_is_that_of_the_spheres():
    """Four voxels away from their centres it hardly matters that voxels make them rough."""
    expected, far = np.zeros(HEAD.grid.shape, dtype=np.float32), HEAD.mask
    for centre, _, value in SPHERES:
        voxels = np.count_nonzero(HEAD.chi == np.float32(value))
        radius = 2 * (3 * voxels / (4 * np.pi)) ** (1 / 3)  # mm, of the same volume
        place = tuple(2.0 * c for c in centre)
        expected += sphere_field(HEAD.grid, radius, value, place)
        far &= ~ellipsoid(HEAD.grid, 8.0, place)
    assert far.sum() > 1000
    assert np.linalg.norm((HEAD.local_field - expected)[far]) < 0.05 * np.linalg.norm(expected[far])


def test_the_background_has_no_sources_in_the_mask():
    background = (HEAD.total_field - HEAD.local_field).astype(np.float64)
    laplacian = sum(np.diff(background, 2, axis=a)[tuple(slice(1, -1) if b != a else slice(None) for b in range(3))]
                    for a in range(3))  # fmt: skip
    inside = HEAD.eroded_mask[1:-1, 1:-1, 1:-1]
    assert np.abs(laplacian[inside]).max() < 1e-6 * np.abs(background).max() * 10


def test_phase_and_magnitude_are_those_of_field_and_rate():
    mask = HEAD.mask
    for echo, time in enumerate(HEAD.echo_times):
        signal = HEAD.magnitude[echo] * np.exp(1j * HEAD.wrapped_phase[echo])
        phase = HEAD.phase_offset + rad_per_ppm(HEAD.field_strength, time) * HEAD.total_field
        expected = HEAD.s0 * np.exp(-time * HEAD.r2star + 1j * phase)
        left = (signal - expected)[mask]
        assert left.real.std() == pytest.approx(NOISE, rel=0.05)
        assert left.imag.std() == pytest.approx(NOISE, rel=0.05)
        assert abs(left.mean()) < 5 * NOISE / np.sqrt(mask.sum())
