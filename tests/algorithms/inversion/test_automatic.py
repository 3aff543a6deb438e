"""Every iterative inversion finds the parameter that decides its map from the data, and finds a good one."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from qsmxt.algorithms.inversion.regularisation import CRITERIA
from qsmxt.algorithms.metrics import nrmse
from qsmxt.errors import InputError
from qsmxt.phantom.example import phantom
from qsmxt.registry.methods import automatic_values, methods
from tests.heads import head

METHODS = methods("inversion")

EXEMPT = {
    "amppe": "estimates the weights of its prior and the noise from the data in every round",
    "network": "the weights of the network hold the prior",
    "totalnetwork": "the weights of the network hold the prior",
}

#: The parameter that decides the map of a method, if it is not called weight.
DECIDES = {
    "tkd": "threshold", "tsvd": "threshold", "ilsqr": "iterations", "qsmart": "iterations", "ndi": "iterations",
    "rts": "fidelity",
}  # fmt: skip
AUTOMATIC = {key: DECIDES.get(key, "weight") for key in METHODS if key not in EXEMPT}

#: Standard deviation of the noise of the field, ppm.
LITTLE, MUCH = 0.001, 0.003

#: Values on both sides of the best one, with little and with much noise.
SWEEPS = {
    "tkd": (0.07, 0.1, 0.15, 0.2, 0.3),
    "tsvd": (0.05, 0.07, 0.1, 0.15),
    "tikhonov": (7e-4, 2e-3, 6e-3, 1.5e-2, 4e-2),
    "rts": (120, 500, 2000, 1e4),
    "ilsqr": (5, 8, 12, 27),
    "ndi": (8, 12, 18, 27),
    "star": (5e-5, 1e-4, 2e-4, 8e-4),
    "tv": (5e-5, 1e-4, 2e-4, 8e-4),
    "hdqsm": (5e-5, 1e-4, 2e-4, 8e-4),
}
#: How much worse than with the best of these values a map may be.
LIMIT = 1.15


def _on_example(key: str, **values) -> tuple[dict, np.ndarray]:
    """What is found on the small phantom, and the map; the field has a little noise."""
    given = _example()
    with automatic_values() as found:
        return found, METHODS[key].run(given, phantom().grid, values)["chi"]


@functools.cache
def _example() -> dict[str, np.ndarray]:
    arrays = dict(phantom().arrays)
    noise = np.random.default_rng(1).normal(0, LITTLE, phantom().grid.shape).astype(np.float32) * arrays["mask"]
    arrays |= {name: arrays[name] + noise for name in ("local_field", "total_field")}
    return arrays | {"field_noise": np.where(arrays["mask"], np.float32(LITTLE), np.float32(0))}


@functools.cache
def _error(key: str, noise: float, value: object, criterion: str = "equalisation") -> tuple[float, float]:
    """Error of the map of a coarse head, percent, and the value used."""
    brain = head(voxel=5.0)
    added = np.random.default_rng(1).normal(0, noise, brain.grid.shape).astype(np.float32)
    given = {
        "local_field": (brain.local_field + added) * brain.brain, "mask": brain.brain,
        "field_noise": np.where(brain.brain, np.float32(noise), np.float32(0)),
    }  # fmt: skip
    with automatic_values() as found:
        values = {AUTOMATIC[key]: value} | ({"criterion": criterion} if value == "auto" else {})
        chi = METHODS[key].run(given, brain.grid, values)["chi"]
    return nrmse(chi, brain.chi, brain.brain), found.get(AUTOMATIC[key], value)


def test_every_inversion_is_automatic_or_exempt():
    assert set(EXEMPT) <= set(METHODS)
    for key, parameter in AUTOMATIC.items():
        declared = {d.name: d.declared for d in METHODS[key].declared_parameters()}
        assert declared[parameter].auto, key
        assert declared["criterion"].choices == CRITERIA, key


@pytest.mark.parametrize("key", AUTOMATIC)
def test_the_value_found_gives_the_same_map_when_it_is_given(key):
    parameter, criterion = AUTOMATIC[key], "lcurve" if key == "tgv_phase" else "discrepancy"
    found, chi = _on_example(key, **{parameter: "auto", "criterion": criterion})
    nothing, again = _on_example(key, **{parameter: found[parameter]})
    assert again.tobytes() == chi.tobytes()
    assert nothing == {}


@pytest.mark.parametrize("key", AUTOMATIC)
def test_discrepancy_asks_for_the_noise(key):
    given = {name: array for name, array in _example().items() if name != "field_noise"}
    with pytest.raises(InputError, match=r"field_noise: expected a noise map .* use another criterion"):
        METHODS[key].run(given, phantom().grid, {AUTOMATIC[key]: "auto", "criterion": "discrepancy"})


@pytest.mark.parametrize("criterion", ["equalisation", "discrepancy"])
@pytest.mark.parametrize("key", SWEEPS)
def test_the_value_found_is_nearly_the_best_and_follows_the_noise(key, criterion):
    found = []
    for noise in (LITTLE, MUCH):
        error, value = _error(key, noise, "auto", criterion)
        best = min(_error(key, noise, tried)[0] for tried in SWEEPS[key])
        assert error < LIMIT * best
        found.append(value)
    more, less = (1, 0) if AUTOMATIC[key] in ("weight", "threshold") else (0, 1)
    assert found[more] > found[less], "more noise asks for more regularisation"
