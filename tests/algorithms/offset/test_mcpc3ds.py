"""MCPC-3D-S and the correction of bipolar readouts."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.offset.bipolar import bipolar_shares
from qsmxt.algorithms.offset.mcpc3ds import MCPC3DSParameters, mcpc3ds
from qsmxt.algorithms.offset.none import none
from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SHAPE = (48, 56, 44)
GRID = Grid(SHAPE, (3.0, 3.0, 3.0))
TIMES = np.array([0.005, 0.011, 0.017, 0.023])
OFF = MCPC3DSParameters(bipolar="off")


def axes() -> tuple[np.ndarray, ...]:
    """Normalised coordinates of the voxels."""
    return tuple(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))


def simulate(offset, times=TIMES, noise=1 / 60, bipolar=0.0) -> tuple[np.ndarray, np.ndarray]:
    """Phase and magnitude of a head with a field of 1 ppm range; ``bipolar`` is added to every second echo."""
    x, y, z = axes()
    field = 1.1 * np.exp(-9 * ((x - 0.1) ** 2 + (y - 0.9) ** 2 + (z + 0.3) ** 2)) + 0.2 * x * z - 0.1 * y
    field += 0.05 * (np.sin(9 * x) * np.sin(11 * y + 1) * np.sin(8 * z))
    rng = np.random.default_rng(3)
    signal = []
    for e, t in enumerate(times):
        phase = offset + field * rad_per_ppm(3.0, t) + (bipolar if e % 2 else 0)
        channel = rng.standard_normal((2, *SHAPE)) * noise
        signal.append(head() * np.exp(-20 * t + 1j * phase) + channel[0] + 1j * channel[1])
    return np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)


def head() -> np.ndarray:
    """Ellipsoid that fills most of the volume."""
    x, y, z = axes()
    return (x / 0.9) ** 2 + (y / 0.9) ** 2 + (z / 0.9) ** 2 < 1


@pytest.fixture(scope="module")
def quadratic() -> np.ndarray:
    """The offset of the digital head, about pi from the centre to the edge."""
    x, y, z = axes()
    return 0.8 + 1.1 * x - 0.7 * y + 0.5 * z + 1.3 * x * y - 0.9 * z**2 + 0.6 * x**2


def error_of(found: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Error of the offset in the head, less a multiple of what a turn of the phase difference makes."""
    error = (found - offset)[head()]
    turn = 2 * np.pi * TIMES[0] / (TIMES[1] - TIMES[0])
    return error - turn * np.rint(np.median(error) / turn)


@pytest.mark.parametrize("mask", [True, False])
def test_a_quadratic_offset_leaves_less_than_0_0015_ppm_up_to_the_rim(quadratic, mask):
    phase, magnitude = simulate(quadratic)
    free, found = mcpc3ds(phase, magnitude, TIMES, GRID, mask=head() if mask else None)
    error = error_of(found, quadratic)
    effective = (TIMES**3).sum() / (TIMES**2).sum()
    x, y, z = axes()
    rim = ((x / 0.85) ** 2 + (y / 0.85) ** 2 + (z / 0.85) ** 2 > 1)[head()]
    assert np.quantile(np.abs(error), 0.999) / rad_per_ppm(3.0, effective) < 0.0015
    assert error[rim].std() / rad_per_ppm(3.0, effective) < 0.0008
    assert error[~rim].std() / rad_per_ppm(3.0, effective) < 0.0003
    left = np.angle(np.exp(1j * (free - phase + found)))
    assert np.abs(left).max() < 1e-5


def test_no_offset_stays_no_offset():
    phase, magnitude = simulate(np.zeros(SHAPE))
    found = mcpc3ds(phase, magnitude, TIMES, GRID)[1]
    error = np.abs(error_of(found, np.zeros(SHAPE)))
    assert np.quantile(error, 0.999) < 0.02
    assert error.max() < 0.03


@pytest.mark.parametrize("times", [(0.005, 0.011, 0.017, 0.023), (0.003, 0.008, 0.014, 0.019)])
def test_the_bipolar_shares_are_exact(times):
    """With E on even echoes and the offset estimate of the first two, all echoes end on omega T."""
    times = np.array(times)
    rng = np.random.default_rng(0)
    omega, artefact, offset = rng.normal(size=(3, 100)) * np.array([[300.0], [0.4], [2.0]])
    phase = [offset + omega * t + artefact * (e % 2) for e, t in enumerate(times)]
    m = times[0] / (times[1] - times[0])
    free = [p - (phase[0] - m * (phase[1] - phase[0])) for p in phase]
    k, f, odd, even = bipolar_shares(times)
    g = free[0] + free[2] - k * free[1]
    np.testing.assert_allclose(g, f * artefact, atol=1e-12)
    for e, t in enumerate(times):
        np.testing.assert_allclose(free[e] - g * (even if e % 2 else odd), omega * t, atol=1e-12)


@pytest.mark.parametrize("times", [TIMES, np.array([0.003, 0.008, 0.014, 0.019])], ids=["equal", "unequal"])
def test_a_bipolar_readout_is_found_and_corrected(quadratic, times):
    artefact = 0.5 * axes()[0] + 0.1
    phase, magnitude = simulate(quadratic, times, bipolar=artefact)
    clean, _ = simulate(quadratic, times)
    free, _ = mcpc3ds(phase, magnitude, times, GRID)
    expected, _ = mcpc3ds(clean, magnitude, times, GRID, OFF)
    uncorrected, _ = mcpc3ds(phase, magnitude, times, GRID, OFF)
    for e in range(len(times)):
        left = np.angle(np.exp(1j * (free[e] - expected[e])))[head()]
        assert np.median(np.abs(left)) < 0.02
        assert np.quantile(np.abs(left), 0.99) < 0.08
    assert np.abs(np.angle(np.exp(1j * (uncorrected[1] - expected[1])))[head()]).max() > 0.5


def test_a_monopolar_readout_is_left_alone(quadratic):
    phase, magnitude = simulate(quadratic)
    ours, plain = mcpc3ds(phase, magnitude, TIMES, GRID), mcpc3ds(phase, magnitude, TIMES, GRID, OFF)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_nan_voxels_become_zero_and_do_no_harm(quadratic):
    phase, magnitude = simulate(quadratic)
    broken = np.random.default_rng(0).random(SHAPE) < 0.05
    phase[1, broken] = np.nan
    free, found = mcpc3ds(phase, magnitude, TIMES, GRID)
    assert not free[1, broken].any()
    assert np.isfinite(free).all()
    assert np.abs(error_of(found, quadratic)).max() < 0.04


def test_two_echoes_suffice_and_inputs_stay(quadratic):
    phase, magnitude = simulate(quadratic)
    phase, magnitude = phase[:2].copy(), magnitude[:2].copy()
    before = phase.copy(), magnitude.copy()
    found = mcpc3ds(phase, magnitude, TIMES[:2], GRID)[1]
    assert np.abs(error_of(found, quadratic)).max() < 0.03
    np.testing.assert_array_equal(phase, before[0])
    np.testing.assert_array_equal(magnitude, before[1])


def test_bad_input_is_refused(quadratic):
    phase, magnitude = simulate(quadratic)
    with pytest.raises(InputError, match="at least 2 echoes, found 1; leave the offset in"):
        mcpc3ds(phase[:1], magnitude[:1], TIMES[:1], GRID)
    with pytest.raises(InputError, match="strictly ascending"):
        mcpc3ds(phase[:2], magnitude[:2], np.array([0.005, 0.005]), GRID)
    with pytest.raises(InputError, match="at least 3 echoes"):
        mcpc3ds(phase[:2], magnitude[:2], TIMES[:2], GRID, MCPC3DSParameters(bipolar="on"))
    with pytest.raises(InputError, match="empty mask"):
        mcpc3ds(phase, magnitude, TIMES, GRID, mask=np.zeros(SHAPE, bool))
    with pytest.raises(InputError, match="expected positive values"):
        mcpc3ds(phase, np.zeros_like(magnitude), TIMES, GRID)


def test_none_keeps_the_phase():
    phase = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype(np.float32)
    free, offset = none(phase, Grid((4, 5, 6)))
    np.testing.assert_array_equal(free, phase)
    assert free is not phase
    assert not offset.any()
