"""HARPERELLA and iHARPERELLA: from wrapped phase of several echoes, without unwrapping."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.background.harperella import harperella
from qsmxt.algorithms.background.iharperella import IHARPERELLAParameters, iharperella
from qsmxt.algorithms.background.phase_laplacian import PhaseLaplacian
from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

TIMES = np.array([0.004, 0.008, 0.016, 0.024])


def phases(field, noise=0.0):
    rng = np.random.default_rng(0)
    clean = np.stack([rad_per_ppm(3.0, t) * field for t in TIMES])
    return np.angle(np.exp(1j * (clean + noise * rng.normal(size=clean.shape)))).astype(np.float32)


def test_laplacian_is_that_of_the_field_though_later_echoes_alias(case):
    steepest = max(np.abs(np.diff(case.total, axis=axis)).max() for axis in range(3))
    field = case.total * np.float32(2.0 / (rad_per_ppm(3.0, TIMES[0]) * steepest))
    data = PhaseLaplacian.of(phases(field), TIMES, 3.0, case.mask, case.grid, None, padding=4.0)
    wide = data.crop.extract(field)
    expected = sum(np.roll(wide, s, a) for a in range(3) for s in (1, -1)) - 6 * wide
    assert np.abs(data.laplacian - expected)[data.known].max() < 1e-3 * np.abs(expected[data.known]).max()


def test_steep_voxels_are_left_open(case):
    """Where the first echo may alias, the Laplacian is not known, so one wild voxel does not spoil its surroundings."""
    measured = phases(case.total)
    measured[:, 20, 18, 18] += 2.9
    data = PhaseLaplacian.of(measured, TIMES, 3.0, case.mask, case.grid, None, padding=4.0)
    known = data.crop.restore(data.known)
    assert not known[20, 18, 18]
    assert not known[19, 18, 18]
    assert known[17, 18, 18]
    plain, _ = iharperella(phases(case.total), TIMES, 3.0, case.mask, case.grid)
    spoilt, _ = iharperella(measured, TIMES, 3.0, case.mask, case.grid)
    far = case.mask.copy()
    far[15:26, 13:24, 13:24] = False
    assert np.abs(spoilt - plain)[far].max() < 0.1 * np.abs(plain).max()


@pytest.mark.parametrize("method", [harperella, iharperella])
def test_local_field_is_found(case, method):
    local, kept = method(phases(case.total), TIMES, 3.0, case.mask, case.grid)
    assert np.array_equal(kept, case.mask)
    inner = np.roll(kept, 3, 1) & np.roll(kept, -3, 1) & np.roll(kept, 3, 0) & np.roll(kept, -3, 0)
    assert case.error(local, inner) < 0.35


def test_magnitude_weighs_the_echoes(case):
    """Phase that is noise where the magnitude is small does little harm if the magnitude is known."""
    measured = phases(case.total)
    rng = np.random.default_rng(1)
    measured[3] = rng.uniform(-np.pi, np.pi, measured[3].shape)
    magnitude = np.ones_like(measured)
    magnitude[3] = 0.01
    with_it = iharperella(measured, TIMES, 3.0, case.mask, case.grid, magnitude=magnitude)[0]
    without = iharperella(measured, TIMES, 3.0, case.mask, case.grid)[0]
    assert case.error(with_it, case.mask) < 0.2 * case.error(without, case.mask)


def test_iharperella_makes_the_field_smaller_with_every_step(case):
    norms = []
    for count in (2, 10, 40):
        parameters = IHARPERELLAParameters(iterations=count, tolerance=1e-9, harmonic_degree=-1)
        norms.append(np.linalg.norm(iharperella(phases(case.total), TIMES, 3.0, case.mask, case.grid, parameters)[0]))
    assert norms[0] > norms[1] > norms[2]


@pytest.mark.parametrize("method", [harperella, iharperella])
def test_bad_input_is_named(case, method):
    good = phases(case.total)
    with pytest.raises(InputError, match="offset_free_phase"):
        method(good[0], TIMES, 3.0, case.mask, case.grid)
    with pytest.raises(InputError, match="echo times"):
        method(good, np.array([0.004, 0.004, 0.016, 0.024]), 3.0, case.mask, case.grid)
    slab = Grid((20, 20, 1))
    with pytest.raises(InputError, match="six neighbours"):
        method(np.zeros((4, 20, 20, 1), np.float32), TIMES, 3.0, np.ones(slab.shape, bool), slab)
