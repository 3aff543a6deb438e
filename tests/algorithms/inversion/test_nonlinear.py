"""Data steps of the splitting solver, and what the nonlinear methods forgive."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from qsmxt.algorithms.inversion.hdqsm import hdqsm
from qsmxt.algorithms.inversion.l1qsm import l1qsm
from qsmxt.algorithms.inversion.nltv import NLTVParameters, nltv
from qsmxt.algorithms.inversion.splitting import AbsoluteData, AbsolutePhaseData, PhaseData, SquaredData
from qsmxt.algorithms.inversion.tv import tv
from qsmxt.algorithms.inversion.whqsm import whqsm
from qsmxt.errors import InputError

COSTS = {
    SquaredData: lambda z, f, w: w * (z - f) ** 2 / 2,
    AbsoluteData: lambda z, f, w: w * abs(z - f),
    PhaseData: lambda z, f, w: w * (1 - np.cos(z - f)),
    AbsolutePhaseData: lambda z, f, w: 2 * w * abs(np.sin((z - f) / 2)),
}


@pytest.mark.parametrize("step", COSTS)
def test_data_steps_minimise_their_cost(step):
    """The proximal map of every voxel against a search, for small differences and across a turn."""
    rng = np.random.default_rng(0)
    shape = (3, 4, 5)
    field = rng.uniform(-1, 1, shape).astype(np.float32)
    weights = rng.uniform(0, 1, shape).astype(np.float32)
    weights[0, 0] = 0
    predicted = (field + rng.uniform(-1.2, 1.2, shape)).astype(np.float32)
    mu = 0.4
    target = np.zeros(shape, dtype=np.float32)
    step(field, weights, mu)(predicted, target)
    z = (target + predicted) / 2
    for index in np.ndindex(*shape):
        f, w, v = float(field[index]), float(weights[index]), float(predicted[index])

        def cost(x, f=f, w=w, v=v):
            return COSTS[step](x, f, w) + mu * (x - v) ** 2 / 2

        best = minimize_scalar(
            cost, bounds=(min(f, v) - 0.1, max(f, v) + 0.1), method="bounded", options={"xatol": 1e-7}
        )
        assert cost(float(z[index])) <= best.fun + 1e-5


@pytest.mark.parametrize("step", [PhaseData, AbsolutePhaseData])
def test_whole_turns_in_the_data_do_not_matter(step):
    rng = np.random.default_rng(1)
    shape = (2, 3, 40)
    field = rng.uniform(-2, 2, shape).astype(np.float32)
    turns = (2 * np.pi * rng.integers(-2, 3, shape)).astype(np.float32)
    predicted = rng.uniform(-2, 2, shape).astype(np.float32)
    away = np.abs(np.abs(predicted - field) - np.pi) > 0.1
    results = []
    for data in (field, field + turns):
        target = np.zeros(shape, dtype=np.float32)
        step(data, np.ones(shape, np.float32), 0.4)(predicted.copy(), target)
        results.append(target)
    np.testing.assert_allclose(results[0][away], results[1][away], atol=1e-4)


def test_wrapped_voxels_are_forgiven(spheres):
    """Field wrong by whole turns at the reference echo time: the nonlinear map does not see it."""
    echo_time, field_strength = 0.03, 3.0
    turn = 1 / (42.577478461 * field_strength * echo_time)
    field = spheres.field.copy()
    wrong = np.random.default_rng(2).choice(np.flatnonzero(spheres.mask), 200, replace=False)
    field.reshape(-1)[wrong] += np.float32(turn)
    parameters = NLTVParameters(reference_echo_time=echo_time)
    found = nltv(field, spheres.mask, spheres.grid, parameters, field_strength=field_strength)
    linear = tv(field, spheres.mask, spheres.grid, field_noise=np.ones_like(field))
    assert spheres.error(found) < 6
    assert spheres.error(linear) > 5 * spheres.error(found)


def test_a_reference_echo_time_needs_the_field_strength(spheres):
    with pytest.raises(InputError, match="field_strength"):
        nltv(spheres.field, spheres.mask, spheres.grid, NLTVParameters(reference_echo_time=0.02))


@pytest.mark.parametrize("method", [l1qsm, hdqsm])
def test_absolute_errors_let_outliers_stand(method, spheres):
    field = spheres.field.copy()
    wrong = np.random.default_rng(3).choice(np.flatnonzero(spheres.mask), 60, replace=False)
    field.reshape(-1)[wrong] += 0.2
    robust = method(field, spheres.mask, spheres.grid)
    squared = tv(field, spheres.mask, spheres.grid, field_noise=np.ones_like(field))
    assert spheres.error(robust) < 0.6 * spheres.error(squared)


def test_a_harmonic_remnant_is_not_taken_for_susceptibility(spheres):
    x, y, z = np.meshgrid(*[np.arange(n) - n / 2 for n in spheres.grid.shape], indexing="ij")
    remnant = 5e-4 * x + 5e-5 * (x * x - y * y) + 0 * z
    field = spheres.field + (remnant * spheres.mask).astype(np.float32)
    harmonic = whqsm(field, spheres.mask, spheres.grid)
    blind = tv(field, spheres.mask, spheres.grid, field_noise=np.ones_like(field))
    assert spheres.error(harmonic) < 0.7 * spheres.error(blind)
