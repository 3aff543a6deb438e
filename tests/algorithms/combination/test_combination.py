"""Coil combination: offsets of the coils vanish, singular coils do no harm, and noise adds up as it should."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.combination.aspire import aspire
from qsmxt.algorithms.combination.mcpc3ds import mcpc3ds
from qsmxt.algorithms.field.weighted_fit import weighted_fit
from qsmxt.algorithms.unwrapping.romeo import romeo
from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SHAPE = (36, 40, 32)
GRID = Grid(SHAPE, (4.0, 4.0, 4.0))
MULTIPLES = np.array([0.006, 0.012, 0.018])
TIMES = np.array([0.004, 0.010, 0.017])
COILS = 6


def axes() -> tuple[np.ndarray, ...]:
    """Normalised coordinates."""
    return tuple(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))


def head() -> np.ndarray:
    """Ellipsoid."""
    x, y, z = axes()
    return (x / 0.85) ** 2 + (y / 0.85) ** 2 + (z / 0.85) ** 2 < 1


def field() -> np.ndarray:
    """Field, ppm."""
    x, y, z = axes()
    return 0.5 * np.exp(-6 * (x**2 + (y - 0.7) ** 2 + z**2)) + 0.2 * x * z - 0.15 * y


def coils(times: np.ndarray, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Loops around the head: sensitivity falls with distance, the phase turns with position."""
    x, y, z = axes()
    rng = np.random.default_rng(0)
    out = []
    for c in range(COILS):
        angle = 2 * np.pi * c / COILS
        near = np.cos(angle) * x + np.sin(angle) * y
        sensitivity = np.exp(1.2 * (near - 1))
        offset = angle + 1.5 * near + 0.8 * z * near + 0.6 * (np.cos(angle) * y - np.sin(angle) * x) ** 2
        for t in times:
            phase = offset + field() * rad_per_ppm(3.0, t)
            channel = noise * (rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE))
            out.append(head() * sensitivity * np.exp(-20 * t + 1j * phase) + channel)
    signal = np.array(out).reshape(COILS, len(times), *SHAPE)
    return np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)


@pytest.mark.parametrize(("method", "times"), [(aspire, MULTIPLES), (mcpc3ds, MULTIPLES), (mcpc3ds, TIMES)])
def test_the_combined_phase_is_that_of_the_field_alone(method, times):
    phase, magnitude = method(*coils(times), times, GRID)
    for e, t in enumerate(times):
        left = np.angle(np.exp(1j * (phase[e] - field() * rad_per_ppm(3.0, t))))[head()]
        left -= np.median(left)
        assert left.std() < 0.05
    unwrapped = romeo(phase, magnitude, times, GRID, mask=head())
    found = weighted_fit(unwrapped, magnitude, times, 3.0, GRID, mask=head())[0]
    error = (found - field())[head()]
    assert (error - np.median(error)).std() < 0.03 * field()[head()].std()


def test_noise_of_the_sum_is_lower_than_that_of_the_best_coil():
    phase, magnitude = coils(MULTIPLES, noise=0.05)
    combined = aspire(phase, magnitude, MULTIPLES, GRID)[0]
    rough = []
    for candidate in (*phase[:, 2], combined[2]):
        third = np.diff(np.unwrap(candidate, axis=2), n=3, axis=2)
        rough.append(np.median(np.abs(third[head()[:, :, 3:] & head()[:, :, :-3]])))
    assert rough[-1] < 0.6 * min(rough[:-1])


def test_the_magnitude_is_the_coherent_root_sum_of_squares():
    phase, magnitude = coils(MULTIPLES, noise=0.0)
    combined = aspire(phase, magnitude, MULTIPLES, GRID)[1]
    np.testing.assert_allclose(combined[:, head()], np.sqrt((magnitude**2).sum(axis=0))[:, head()], rtol=0.01)


def test_a_dead_coil_and_nan_do_no_harm():
    phase, magnitude = coils(MULTIPLES)
    expected = aspire(phase[1:], magnitude[1:], MULTIPLES, GRID)
    magnitude[0] = 0
    for ours, reference in zip(aspire(phase, magnitude, MULTIPLES, GRID), expected, strict=True):
        np.testing.assert_allclose(ours[:, head()], reference[:, head()], atol=1e-4)
    phase[2, :, ::5, ::4, ::3] = np.nan
    assert np.isfinite(aspire(phase, magnitude, MULTIPLES, GRID)).all()


def test_bad_input_is_refused():
    phase, magnitude = coils(TIMES)
    with pytest.raises(InputError, match="multiple"):
        aspire(phase, magnitude, TIMES, GRID)
    with pytest.raises(InputError, match="at least 2 echoes"):
        mcpc3ds(phase[:, :1], magnitude[:, :1], TIMES[:1], GRID)
    with pytest.raises(InputError, match="coil, echo, x, y, z"):
        mcpc3ds(phase[0], magnitude[0], TIMES, GRID)
    with pytest.raises(InputError, match="expected 6 coils"):
        mcpc3ds(phase, magnitude[:3], TIMES, GRID)
    with pytest.raises(InputError, match="empty mask"):
        mcpc3ds(phase, magnitude, TIMES, GRID, mask=np.zeros(SHAPE, bool))
