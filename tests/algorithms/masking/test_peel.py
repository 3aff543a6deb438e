"""Peeling: outer fluid goes, tissue, fluid inside and tissue that dephases stay; one echo takes a bright rim."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.peel import PeelParameters, peel
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

GRID = Grid((40, 40, 40), (2.0, 2.0, 2.0))
TIMES = np.array([0.005, 0.014, 0.023])


def distance() -> np.ndarray:
    x, y, z = (2.0 * np.indices(GRID.shape) - 39.0).astype(np.float32)
    return np.sqrt(x**2 + y**2 + z**2)


def scene(factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Rates (1/s, times ``factor``) of tissue to 26 mm, of fluid to 32 mm and in the middle; where there is either."""
    r = distance()
    rate = np.where((r > 26) | (r < 6), 4.0, 18.0) * factor
    return rate, r <= 32


def signals(rate: np.ndarray, inside: np.ndarray, noise: float = 0.0) -> np.ndarray:
    decay = inside * np.exp(-TIMES[:, None, None, None] * rate)
    rng = np.random.default_rng(0)
    return np.abs(decay + noise * (rng.normal(size=decay.shape) + 1j * rng.normal(size=decay.shape))).astype(np.float32)


@pytest.mark.parametrize(("factor", "noise"), [(1.0, 0.0), (1.0, 0.04), (2.0, 0.04)])
def test_the_fluid_around_goes_and_that_inside_stays(factor, noise):
    rate, inside = scene(factor)
    kept = peel(inside, signals(rate, inside, noise), GRID, echo_times=TIMES)
    r = distance()
    assert kept[r < 24].all()
    assert kept[(r > 29) & inside].mean() < 0.02


def test_tissue_that_decays_fast_at_the_border_stays():
    rate, inside = scene()
    dephased = inside & (np.indices(GRID.shape)[2] > 30)
    rate[dephased] = 60.0
    kept = peel(inside, signals(rate, inside), GRID, echo_times=TIMES)
    deep = dephased & (distance() < 29)
    assert kept[deep].mean() > 0.97


def test_fluid_deeper_than_the_depth_stays():
    rate, inside = scene()
    kept = peel(inside, signals(rate, inside), GRID, PeelParameters(depth=3.0), echo_times=TIMES)
    assert kept[distance() < 27].all() and not kept[distance() > 30].any()


def test_one_echo_takes_a_bright_rim_only():
    rate, inside = scene()
    one = signals(rate, inside)[:1]
    dark = inside & (np.indices(GRID.shape)[2] > 30)
    one[:, dark] *= 0.5
    kept = peel(inside, one, GRID, echo_times=TIMES[:1])
    r = distance()
    assert kept[r < 29].all() and not kept[(r > 31) & ~dark].any()
    assert kept[dark & (r < 31)].mean() > 0.95
    np.testing.assert_array_equal(peel(inside, one[0], GRID), kept)
    assert peel(inside, one, GRID, PeelParameters(rim=0.0))[r < 30].all()


def test_one_late_echo_shows_the_fluid_below_the_rim():
    rate, inside = scene()
    late = (inside * np.exp(-0.03 * rate)).astype(np.float32)  # fluid is 1.5 times as bright as tissue
    kept = peel(inside, late, GRID)
    r = distance()
    assert kept[r < 24].all() and kept[(r > 29.5) & inside].mean() < 0.01
    same = inside.astype(np.float32)  # fluid as bright as tissue: nothing below the rim goes
    assert peel(inside, same, GRID)[r < 29].all()


def test_echoes_that_tell_nothing_apart_count_as_one():
    inside = scene()[1]
    same = signals(np.full(GRID.shape, 18.0), inside, 0.3)
    np.testing.assert_array_equal(
        peel(inside, same, GRID, PeelParameters(level=0.9), echo_times=TIMES), peel(inside, same[:1], GRID)
    )


def test_echo_times_must_fit():
    rate, inside = scene()
    with pytest.raises(InputError, match="expected 3, one for every echo, found 2"):
        peel(inside, signals(rate, inside), GRID, echo_times=TIMES[:2])
    nothing = np.zeros(GRID.shape, dtype=bool)
    assert not peel(nothing, signals(rate, inside), GRID, echo_times=TIMES).any()
