"""The declared memory of every inversion, merging and referencing against the measured peak; background has its own."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from qsmxt.geometry import Grid
from qsmxt.registry.artifacts import ARTIFACTS, STACKED
from qsmxt.registry.methods import Method
from tests.contracts.test_methods import METHODS, PARAMETERS, SHAPE, inputs, names

#: The phantom enlarged by repetition: small grids would show the fixed part.
TIMES = 4
GRID = Grid((SHAPE[0] * TIMES, SHAPE[1] * TIMES, SHAPE[2] * TIMES), (2.0, 2.0, 2.0))
#: Runs of which the least peak counts: what other threads of the process take meanwhile only adds to it.
RUNS = 2


def _enlarged(name: str, value: np.ndarray) -> np.ndarray:
    if ARTIFACTS[name].kind not in ("volume", "mask", "labels", *STACKED):
        return value
    for axis in (-3, -2, -1):
        value = value.repeat(TIMES, axis=axis)
    return value


@pytest.mark.parametrize(
    "method",
    [m for m in METHODS.values() if m.stage in ("inversion", "merging", "referencing")],
    ids=lambda m: m.name,
)
def test_memory_is_as_declared(method: Method):
    given = inputs(names(method), _enlarged)
    few = {n: min(v, 4) if n in ("iterations", "inner_iterations") else v for n, v in PARAMETERS[method.name].items()}
    if method.key == "rts":
        few = PARAMETERS[method.name]
    peaks = []
    for _ in range(RUNS):
        tracemalloc.start()
        method.run(given, GRID, few)
        peaks.append(tracemalloc.get_traced_memory()[1] / np.prod(GRID.shape))
        tracemalloc.stop()
    assert min(peaks) == pytest.approx(method.cost.bytes_per_voxel, rel=0.2)
