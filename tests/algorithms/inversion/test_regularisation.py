"""Automatic weights follow the noise."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.domain import Domain
from qsmxt.algorithms.inversion.regularisation import (
    RANGE,
    by_discrepancy,
    by_lcurve,
    equalised,
    of_total_variation,
    weight_of,
)
from qsmxt.algorithms.inversion.tv import TVParameters, tv
from qsmxt.errors import InputError


def _noisy(spheres, sd: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (spheres.field + sd * rng.standard_normal(spheres.grid.shape) * spheres.mask).astype(np.float32)


def _domain(spheres, sd: float) -> Domain:
    return Domain.around("local_field", _noisy(spheres, sd), spheres.mask, spheres.grid)


def test_more_noise_asks_for_more_regularisation(spheres):
    for criterion in (equalised, lambda t: by_discrepancy(t, t.domain.noise)):  # type: ignore[attr-defined]
        found = []
        for sd in (3e-3, 3e-2):
            domain = _domain(spheres, sd)
            object.__setattr__(domain, "noise", float(sd * np.sqrt(spheres.mask.sum())))
            found.append(criterion(of_total_variation(domain)))
        assert RANGE[0] <= found[0] < found[1] <= RANGE[1]


def test_lcurve_stays_inside_its_range(spheres):
    assert RANGE[0] < by_lcurve(of_total_variation(_domain(spheres, 0.01))) < RANGE[1]


def test_automatic_beats_fixed_weights_far_off(spheres):
    field = _noisy(spheres, 0.005)
    noise = np.full(spheres.grid.shape, 0.005, dtype=np.float32)

    def error(**values) -> float:
        return spheres.error(tv(field, spheres.mask, spheres.grid, TVParameters(**values)))

    assert error(weight="auto") < 0.5 * error(weight=1e-5)
    assert error(weight="auto") < error(weight=3e-2)
    weight = weight_of("auto", "discrepancy", _domain(spheres, 0.005), noise)
    assert error(weight=weight) < 0.5 * error(weight=1e-5)


def test_a_given_weight_is_kept(spheres):
    assert weight_of(3e-4, "equalisation", _domain(spheres, 0), None) == 3e-4


def test_discrepancy_needs_the_noise(spheres):
    with pytest.raises(InputError, match="field_noise"):
        tv(spheres.field, spheres.mask, spheres.grid, TVParameters(weight="auto", criterion="discrepancy"))


def test_without_a_field_a_weight_is_found_all_the_same(spheres):
    chi = tv(0 * spheres.field, spheres.mask, spheres.grid, TVParameters(weight="auto"))
    assert not chi.any()
