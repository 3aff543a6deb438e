"""Total-field inversion: background sources go outside, the inside is recovered."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels, parallel
from qsmxt.algorithms.inversion.tvtfi import TVTFIParameters, tvtfi
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SHAPE = (64, 64, 64)


def _ball(centre, radius):
    x, y, z = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2


@pytest.fixture(scope="module")
def spheres():
    """Four spheres in a ball, a strong source outside, fields of both (ppm)."""
    mask = _ball((32, 32, 32), 22)
    chi = np.zeros(SHAPE, dtype=np.float32)
    for centre, radius, value in (
        ((32, 32, 32), 6, 0.1),
        ((42, 32, 28), 4, -0.05),
        ((26, 22, 36), 4, 0.2),
        ((28, 44, 30), 3, 0.15),
    ):
        chi[_ball(centre, radius)] = value
    outside = np.where(
        _ball((32, 58, 32), 3) | _ball((6, 32, 32), 3) | _ball((32, 30, 60), 4), np.float32(9.4), np.float32(0)
    )
    return mask, chi, outside


def _field(chi, direction):
    wide = Grid((128, 128, 128), b0_direction=direction)
    padded = np.zeros(wide.shape, dtype=np.float32)
    padded[:64, :64, :64] = chi
    return fourier.filtered(padded, kernels.dipole(wide, "greens"))[:64, :64, :64]


def _error(found, truth, where):
    found, truth = found[where] - found[where].mean(), truth[where] - truth[where].mean()
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("direction", [(0, 0, 1), (0.3, -0.4, 0.87)])
def test_inside_is_recovered_below_a_background_five_times_stronger(spheres, direction):
    mask, chi, outside = spheres
    grid = Grid(SHAPE, b0_direction=direction)
    background, local = _field(outside, direction), _field(chi, direction)
    assert background[mask].std() > 5 * local[mask].std()
    core = _ball((32, 32, 32), 18)
    found, found_local = tvtfi(background + local, mask, grid)
    assert _error(found, chi, core) < 0.2
    assert _error(found_local, local, core) < 0.3
    alone, _ = tvtfi(local, mask, grid)
    assert _error(found, alone, core) < 0.12


def test_pure_background_leaves_nothing(spheres):
    mask, chi, outside = spheres
    found, local = tvtfi(_field(outside, (0, 0, 1)), mask, Grid(SHAPE))
    core = _ball((32, 32, 32), 18)
    assert found[core].std() < 0.05 * chi[core].std()
    assert local[core].std() < 0.05 * _field(chi, (0, 0, 1))[core].std()


def test_paramagnetic_is_positive(spheres):
    mask, chi, outside = spheres
    found, _ = tvtfi(_field(chi + outside, (0, 0, 1)), mask, Grid(SHAPE))
    assert found[_ball((26, 22, 36), 2)].mean() > 0.15
    assert found[_ball((42, 32, 28), 2)].mean() < -0.03


def test_voxels_of_no_quality_do_not_count(spheres):
    mask, chi, _ = spheres
    field = _field(chi, (0, 0, 1))
    broken, quality = field.copy(), np.ones(SHAPE, dtype=np.float32)
    broken[34:36, 38:40, 38:40], quality[34:36, 38:40, 38:40] = 5, 0
    core = _ball((32, 32, 32), 18)
    clean, _ = tvtfi(field, mask, Grid(SHAPE))
    trusted, _ = tvtfi(broken, mask, Grid(SHAPE))
    weighted, _ = tvtfi(broken, mask, Grid(SHAPE), fit_quality=quality)
    assert _error(weighted, clean, core) < 0.05 < _error(trusted, clean, core)


def test_bad_input_is_named(spheres):
    mask, chi, _ = spheres
    with pytest.raises(InputError, match="empty mask"):
        tvtfi(chi, np.zeros(SHAPE, dtype=bool), Grid(SHAPE))
    broken = chi.copy()
    broken[32, 32, 32] = np.nan
    with pytest.raises(InputError, match=r"total_field.*1 voxels"):
        tvtfi(broken, mask, Grid(SHAPE))


def test_same_bytes_for_any_number_of_threads(spheres):
    mask, chi, outside = spheres
    field = _field(chi + outside, (0, 0, 1))
    results = []
    try:
        for threads in (1, 2, 8):
            parallel.set_thread_count(threads)
            results.append(tvtfi(field, mask, Grid(SHAPE), TVTFIParameters(iterations=4))[0].tobytes())
    finally:
        parallel.set_thread_count(None)
    assert results[0] == results[1] == results[2]
