"""The declared memory against the measured peak, for a mask and box in the proportions of a head."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from qsmxt.geometry import Grid
from qsmxt.registry.methods import methods

METHODS = methods("background")
#: Runs of which the least peak counts: what other threads of the process take meanwhile only adds to it.
RUNS = 3


@pytest.mark.parametrize("key", list(METHODS))
def test_memory_is_as_declared(key):
    grid = Grid((80, 96, 80), (2.4, 2.4, 2.4))
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * v).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, v) in enumerate(zip(grid.shape, grid.voxel_size, strict=True))
    )
    mask = (x / 67) ** 2 + (y / 86) ** 2 + (z / 70) ** 2 <= 1
    field = (0.01 * x + 1e-4 * (x * x - y * y) + 0 * z).astype(np.float32)
    arrays = {"total_field": field, "mask": mask}
    if "offset_free_phase" in METHODS[key].consumes:
        phase = np.repeat(np.angle(np.exp(1j * field))[None].astype(np.float32), 4, axis=0)
        times = np.array([0.004, 0.012, 0.02, 0.028])
        arrays |= {"offset_free_phase": phase, "magnitude": np.ones_like(phase)}
        arrays |= {"echo_times": times, "field_strength": 3.0}
    names = [p.name for p in METHODS[key].declared_parameters()]
    few = {"iterations": 2} if "iterations" in names else {}
    METHODS[key].run(arrays, grid, few)
    peaks = []
    for _ in range(RUNS):
        tracemalloc.start()
        METHODS[key].run(arrays, grid, few)
        peaks.append(tracemalloc.get_traced_memory()[1] / field.size)
        tracemalloc.stop()
    assert min(peaks) == pytest.approx(METHODS[key].cost.bytes_per_voxel, rel=0.2)
