"""Fluid of the ventricles: found whatever the rate of tissue, only deep and central fluid, and a zero of the map."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.masking.ventricles import VentriclesParameters, ventricles
from qsmxt.algorithms.referencing.csf import csf
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.phantom.anatomy import INDEX
from tests.heads import ECHO_TIMES, head

GRID = Grid((60, 50, 50), (2.0, 2.0, 2.0))
TIMES = np.array([0.005, 0.014, 0.023])


def _scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brain, ventricles in its middle, and fluid that is none: at the surface, and deep but far from the middle."""
    x, y, z = ((2.0 * np.indices(GRID.shape)).T - np.array(GRID.shape) + 1).T
    brain = (x / 56) ** 2 + (y / 45) ** 2 + (z / 45) ** 2 <= 1
    ventricles = sum(((x - side) / 6) ** 2 + (y / 16) ** 2 + (z / 8) ** 2 <= 1 for side in (-9, 9)) > 0
    surface = brain & ((x / 52) ** 2 + (y / 41) ** 2 + (z / 41) ** 2 > 1)
    far = (x - 40) ** 2 + y**2 + z**2 <= 4**2
    return brain, ventricles, surface | far


def _signal(rate: np.ndarray, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    decay = np.exp(-TIMES[:, None, None, None] * rate)
    return np.abs(decay + noise * (rng.normal(size=decay.shape) + 1j * rng.normal(size=decay.shape)))


@pytest.mark.parametrize(("factor", "noise"), [(1.0, 0.0), (2.0, 0.02)])
def test_the_ventricles_are_found_and_no_other_fluid(factor, noise):
    brain, inner, other = _scene()
    found = ventricles(_signal(np.where(inner | other, 4.0, 18.0) * factor, noise), TIMES, brain, GRID)
    assert not found[~inner].any()
    assert found.sum() > 0.6 * inner.sum(), "all but the layer in which smoothing mixes tissue"


def test_fluid_nearer_to_the_surface_than_the_depth_does_not_count():
    brain, inner, other = _scene()
    signal = _signal(np.where(inner | other, 4.0, 18.0))
    assert not ventricles(signal, TIMES, brain, GRID, VentriclesParameters(depth=50.0)).any()


def test_one_echo_and_an_empty_mask_are_refused():
    brain, _, _ = _scene()
    with pytest.raises(InputError, match="at least 2 echoes, found 1; give a mask of the fluid"):
        ventricles(np.ones((1, *GRID.shape)), TIMES[:1], brain, GRID)
    with pytest.raises(InputError, match="mask"):
        ventricles(np.ones((3, *GRID.shape)), TIMES, np.zeros_like(brain), GRID)


def test_the_fluid_of_a_head_becomes_zero():
    source = head()
    fluid = ventricles(source.magnitude, np.array(ECHO_TIMES), source.brain, source.grid)
    assert fluid.any() and (source.labels[fluid] == INDEX["csf"]).all()
    chi, offset = csf(source.chi, source.brain, fluid, source.grid)
    assert offset == pytest.approx(0.019, abs=1e-6) and np.abs(chi[fluid]).max() < 1e-6
