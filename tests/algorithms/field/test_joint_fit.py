"""The field straight from the wrapped phase: accuracy on a head with offset, noise, wraps, and odd acquisitions."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.field.joint_fit import JointFitParameters, joint_fit
from qsmxt.algorithms.field.linear_fit import linear_fit
from qsmxt.algorithms.offset.mcpc3ds import mcpc3ds
from qsmxt.algorithms.unwrapping.romeo import romeo
from qsmxt.constants import rad_per_ppm
from qsmxt.geometry import Grid

SHAPE = (48, 56, 44)
GRID = Grid(SHAPE, (3.0, 3.0, 3.0))
TIMES = np.array([0.005, 0.011, 0.017, 0.023])


def axes() -> tuple[np.ndarray, ...]:
    """Normalised coordinates."""
    return tuple(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))


def truth() -> np.ndarray:
    """Field with a strong source near the front and fine structure, range about 1.5 ppm."""
    x, y, z = axes()
    field = 1.1 * np.exp(-9 * ((x - 0.1) ** 2 + (y - 0.9) ** 2 + (z + 0.3) ** 2)) + 0.2 * x * z - 0.1 * y
    return field + 0.04 * np.sin(9 * x) * np.sin(11 * y + 1) * np.sin(8 * z)


def offset() -> np.ndarray:
    """Quadratic, about pi from the centre to the edge."""
    x, y, z = axes()
    return 0.8 + 1.1 * x - 0.7 * y + 0.5 * z + 1.3 * x * y - 0.9 * z**2 + 0.6 * x**2


def head() -> np.ndarray:
    """Ellipsoid."""
    x, y, z = axes()
    return (x / 0.9) ** 2 + (y / 0.9) ** 2 + (z / 0.9) ** 2 < 1


def acquire(times=TIMES, field_strength=3.0, snr=60.0, shift=0.0, bipolar=0.0) -> tuple[np.ndarray, np.ndarray]:
    """Phase and magnitude; ``shift`` (ppm) is a uniform field, ``bipolar`` (rad) adds to every second echo."""
    rng = np.random.default_rng(3)
    signal = []
    for e, t in enumerate(times):
        phase = offset() + (truth() + shift) * rad_per_ppm(field_strength, t) + (bipolar if e % 2 else 0)
        noise = rng.standard_normal((2, *SHAPE)) / snr
        signal.append(head() * np.exp(-20 * t + 1j * phase) + noise[0] + 1j * noise[1])
    return np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)


def error(field: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Error less its median, in ``where``."""
    out = (field - truth())[where]
    return out - np.median(out)


CASES = {
    "four echoes": {},
    "two echoes": {"times": TIMES[:2]},
    "equal spacing, first echo equal to it": {"times": np.array([0.006, 0.012, 0.018, 0.024])},
    "long first echo": {"times": np.array([0.012, 0.016, 0.021])},
    "low SNR": {"snr": 20.0},
    "7 T": {"field_strength": 7.0},
    "uniform field": {"shift": 0.4},
    "bipolar": {"bipolar": 0.5 * np.linspace(-1, 1, SHAPE[0])[:, None, None]},
}


@pytest.mark.parametrize("case", CASES)
def test_no_wrong_wraps_and_noise_as_with_a_known_offset(case):
    settings = CASES[case]
    times, strength = settings.get("times", TIMES), settings.get("field_strength", 3.0)
    phase, magnitude = acquire(**settings)
    field, noise, quality = joint_fit(phase, magnitude, times, strength, GRID)
    good = head() & (quality > 0.9)
    assert good.sum() > 0.97 * head().sum()
    left = error(field, good)
    assert np.abs(left).max() < 0.4 / rad_per_ppm(strength, times[-1]) * np.pi
    expected = np.sqrt((noise[good] ** 2).mean())
    assert left.std() < (1.3 if times[0] > 0.01 else 1.15) * expected
    norm = np.sqrt(((truth()[good] - truth()[good].mean()) ** 2).mean())
    assert left.std() < max(0.03 * norm, 1.15 * expected)
    sigma = 1 / settings.get("snr", 60.0)
    theory = sigma / rad_per_ppm(strength, 1.0) / np.sqrt((np.exp(-40 * times) * times**2).sum())
    assert np.median(noise[good]) == pytest.approx(theory, rel=0.1)


def test_half_the_noise_of_a_voxelwise_offset():
    phase, magnitude = acquire()
    true_phase = np.stack([offset() + truth() * rad_per_ppm(3.0, t) for t in TIMES])
    unwrapped = phase + 2 * np.pi * np.rint((true_phase - phase) / (2 * np.pi))
    ours = error(joint_fit(phase, magnitude, TIMES, 3.0, GRID)[0], head())
    free = error(linear_fit(unwrapped, magnitude, TIMES, 3.0, GRID)[0], head())
    assert ours.std() < 0.6 * free.std()


def test_two_parts_of_a_mask_share_one_reference():
    mask = head() & (np.abs(axes()[0] - 0.05) > 0.06)
    phase, magnitude = acquire()
    field, _, quality = joint_fit(phase, magnitude, TIMES, 3.0, GRID, mask=mask)
    left = error(field, mask & (quality > 0.9))
    assert np.abs(left).max() < 0.1


def test_one_echo_keeps_its_offset():
    phase, magnitude = acquire(TIMES[1:2])
    field, _, quality = joint_fit(phase, magnitude, TIMES[1:2], 3.0, GRID)
    scale = rad_per_ppm(3.0, TIMES[1])
    good = head() & (quality > 0.9)
    left = ((field - truth()) * scale - offset())[good]
    turns = np.rint(np.median(left) / (2 * np.pi))
    assert good.sum() > 0.97 * head().sum()
    assert np.abs(left - 2 * np.pi * turns).max() < 0.3


def test_nan_voxels_are_left_out():
    phase, magnitude = acquire()
    broken = np.random.default_rng(0).random(SHAPE) < 0.05
    phase[2, broken] = np.nan
    field, _, quality = joint_fit(phase, magnitude, TIMES, 3.0, GRID)
    assert not field[broken].any()
    left = error(field, head() & (quality > 0.9))
    assert np.abs(left).max() < 0.03


def test_inputs_stay_and_the_smoothing_width_hardly_matters_for_a_quadratic():
    phase, magnitude = acquire()
    before = phase.copy(), magnitude.copy()
    narrow, wide = (
        joint_fit(phase, magnitude, TIMES, 3.0, GRID, JointFitParameters(smoothing=width))[0] for width in (8.0, 20.0)
    )
    np.testing.assert_array_equal(phase, before[0])
    np.testing.assert_array_equal(magnitude, before[1])
    assert (narrow - wide)[head()].std() < 0.0015


def test_a_brain_in_vivo_at_three_echoes(real_data):
    """Real data: nearly all voxels agree with one frequency and a smooth offset, at half the noise of a free offset."""
    nibabel = pytest.importorskip("nibabel")
    folder = real_data / "brain-crop-gre-3echo"
    magnitude, phase = (
        np.moveaxis(nibabel.load(folder / f"{name}.nii").get_fdata(dtype=np.float32), -1, 0)
        for name in ("Mag", "Phase")
    )
    phase = phase * np.float32(np.pi / np.abs(phase).max())
    times, grid = np.array([0.004, 0.008, 0.012]), Grid(phase.shape[1:], (0.4688, 0.4688, 1.0))
    field, noise, quality = joint_fit(phase, magnitude, times, 3.0, grid)
    assert (quality > 0.9).mean() > 0.995
    whole = np.ones(grid.shape, bool)
    unwrapped = romeo(mcpc3ds(phase, magnitude, times, grid)[0], magnitude, times, grid, mask=whole)
    free, free_noise, _ = linear_fit(unwrapped, magnitude, times, 3.0, grid)
    rough = [np.median(np.abs(np.diff(volume[:, :, 2:], n=3, axis=0))) for volume in (field, free)]
    assert rough[0] < 0.6 * rough[1]
    assert np.median(noise) < 0.6 * np.median(free_noise)
    assert np.median(np.abs(np.diff(field[:, :, 2:], n=3, axis=0))) / (0.6745 * np.sqrt(20)) == pytest.approx(
        np.median(noise), rel=0.35
    )
