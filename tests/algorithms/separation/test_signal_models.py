"""Separations from the shape of the decay: recovery where their models hold."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.separation import closedform, decompose, hcchisep
from qsmxt.algorithms.separation.decompose import SPHERES
from qsmxt.algorithms.separation.hcchisep import ANGLES, FRACTIONS, T2, decays
from qsmxt.constants import hz_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

SHAPE = (6, 7, 8)
GRID = Grid(SHAPE)
MASK = np.ones(SHAPE, dtype=bool)
TIMES = 0.003 * np.arange(1, 13)
STRENGTH = 7.0


def _three_pools(parts, sources, rate):
    """Signal of three pools; ``parts`` of paramagnetic, diamagnetic and neutral tissue."""
    angular = 2 * np.pi * hz_per_ppm(STRENGTH)
    signal = 0
    for part, chi in zip(parts, (*sources, 0.0), strict=True):
        signal = signal + part * np.exp(-(SPHERES * angular * abs(chi) + rate + 2j / 3 * angular * chi) * TIMES)
    return signal


def test_rate_of_spheres_at_three_tesla():
    """The published 323.5 1/s/ppm."""
    assert SPHERES * 2 * np.pi * hz_per_ppm(3.0) == pytest.approx(323.5, abs=0.3)


@pytest.mark.parametrize(("parts", "sources"), [((0.4, 0.3, 0.3), (0.12, -0.08)), ((0.2, 0.5, 0.3), (0.15, -0.10))])
def test_three_pools_are_found(parts, sources):
    """Both pools as parts of the voxel, from a susceptibility of every echo."""
    signal = _three_pools(parts, sources, 12.0)
    angular = 2 * np.pi * hz_per_ppm(STRENGTH)
    each = -np.unwrap(np.angle(signal)) / (2 / 3 * angular * TIMES)
    magnitude = np.abs(signal)[:, None, None, None] * np.ones((1, *SHAPE))
    echo_chi = each[:, None, None, None] * np.ones((1, *SHAPE))
    rate = np.full(SHAPE, -np.polyfit(TIMES, np.log(np.abs(signal)), 1)[0])
    settings = decompose.method.configure({"iterations": 300})
    found = decompose(echo_chi[-1], rate, magnitude, TIMES, MASK, STRENGTH, GRID, settings, echo_chi=echo_chi)
    expected = parts[0] * sources[0], parts[1] * sources[1]
    print([float(v[0, 0, 0]) for v in found], expected)
    np.testing.assert_allclose(found[0], expected[0], rtol=0.15)
    np.testing.assert_allclose(found[1], expected[1], rtol=0.15)


def test_sources_of_one_sign():
    """Paramagnetic tissue only: nothing diamagnetic to speak of, and the sum is the susceptibility."""
    signal = _three_pools((0.5, 0.0, 0.5), (0.1, -0.1), 15.0)
    each = -np.unwrap(np.angle(signal)) / (4 / 3 * np.pi * hz_per_ppm(STRENGTH) * TIMES)
    magnitude, echo_chi = (v[:, None, None, None] * np.ones((1, *SHAPE)) for v in (np.abs(signal), each))
    rate, settings = np.full(SHAPE, 40.0), decompose.method.configure({"iterations": 300})
    found = decompose(echo_chi[0], rate, magnitude, TIMES, MASK, STRENGTH, GRID, settings, echo_chi=echo_chi)
    np.testing.assert_allclose(found[0], 0.05, atol=1e-3)
    np.testing.assert_allclose(found[1], 0, atol=1e-3)


def test_without_further_sources_hollow_cylinders_along_the_field_have_myelin_frequencies_only():
    """Along B0 axons precess like the outer water, so the beat is that of myelin water alone."""
    gradient_echo, spin_echo = decays(TIMES, STRENGTH)
    assert ANGLES[0] == 0
    share = FRACTIONS[10]
    frequency = hz_per_ppm(STRENGTH) * (-0.1 / 2 * 2 / 3 - 0.1 / 2 / 6 + 0.02)
    rest = (1 - share) * (0.55 * np.exp(-TIMES / T2[1]) + 0.45 * np.exp(-TIMES / T2[2]))
    expected = np.abs(share * np.exp(-TIMES / T2[0] + 2j * np.pi * frequency * TIMES) + rest)
    np.testing.assert_allclose(gradient_echo[0, 10], expected, rtol=1e-9)
    assert (gradient_echo <= spin_echo[None] + 1e-12).all()


def _white_matter(noise):
    """Voxels of hollow cylinders at 60 degrees with a myelin-water fraction of 0.12, and their susceptibility."""
    rng = np.random.default_rng(0)
    shape = (16, 16, 16)
    gradient_echo, spin_echo = decays(TIMES, STRENGTH)
    angle, share = 20, int(np.argmin(np.abs(FRACTIONS - 0.12)))
    own = np.polyfit(TIMES, np.log(spin_echo[share] / gradient_echo[angle, share]), 1)[0]
    clean = gradient_echo[angle, share] * np.exp(-8.0 * TIMES)
    magnitude = np.abs(clean[:, None, None, None] + noise * rng.standard_normal((TIMES.size, *shape)))
    return Grid(shape), magnitude, np.full(shape, own + 8.0), np.full(shape, -0.02), 0.317 * FRACTIONS[share]


@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 0.02), (0.01, 0.25)])
def test_myelin_is_found_in_the_shape_of_the_decay(noise, tolerance):
    grid, magnitude, reversible, chi, expected = _white_matter(noise)
    mask = np.ones(grid.shape, dtype=bool)
    positive, negative = hcchisep(chi, reversible, magnitude, TIMES, mask, STRENGTH, grid, r2prime=reversible)
    print(negative.mean(), expected)
    assert abs(-negative.mean() / expected - 1) < tolerance
    np.testing.assert_allclose(positive.mean() + negative.mean(), -0.02, atol=0.002)


def test_an_exponential_is_separated_in_closed_form():
    magnitude = np.exp(-30 * TIMES)[:, None, None, None] * np.ones((1, *SHAPE))
    chi, rate = np.full(SHAPE, 0.03), np.full(SHAPE, 30.0)
    found = hcchisep(chi, rate, magnitude, TIMES, MASK, STRENGTH, GRID, r2prime=rate)
    for a, b in zip(found, closedform(chi, rate, MASK, STRENGTH, GRID, r2prime=rate), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("function", [decompose, hcchisep])
def test_bad_input_is_named(function):
    magnitude = np.ones((12, *SHAPE))
    with pytest.raises(InputError, match=r"echo times.*at least"):
        function(np.zeros(SHAPE), np.zeros(SHAPE), magnitude[:2], TIMES[:2], MASK, 3.0, GRID)
    with pytest.raises(InputError, match="magnitude"):
        function(np.zeros(SHAPE), np.zeros(SHAPE), np.full_like(magnitude, np.nan), TIMES, MASK, 3.0, GRID)
