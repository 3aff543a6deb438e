"""The declared memory of every method against the measured peak; background removal has its own, in its folder.

Traced is what numpy and scipy allocate. The peak of the process, measured once for every method in images of this size,
is the same but for pages that are never written.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from qsmxt.geometry import Grid
from qsmxt.registry.artifacts import ARTIFACTS, STACKED
from qsmxt.registry.methods import Method
from tests.contracts.test_methods import METHODS, PARAMETERS, SHAPE, inputs

#: The phantom enlarged by repetition: small grids would show the fixed part.
TIMES = 4
#: Enough for slow fits of single voxels.
FEW_TIMES = dict.fromkeys(("relaxometry.nonlinear", "separation.decompose", "separation.hcchisep"), 2)
#: Size of a voxel, mm; finer where the offset is smoothed, whose nodes are a fixed distance apart.
COARSE, FINE = 2.0, 1.2
#: Stages before there is a mask. What they see is the head, whose box fills three quarters of the image.
EARLY = ("combination", "offset", "unwrapping", "field")
HEAD = 0.9
#: Methods that take a large constant amount besides, such as tables; of these the growth with the image counts.
CONSTANT_PART = ("spinecho.epg",)
#: Most runs, of which the least peak counts: what other threads of the process take meanwhile only adds to it.
RUNS = 3
#: Numbers of iterations that do not change the peak.
FEWEST = 2
COUNTED = ("iterations", "inner_iterations", "first_iterations", "streak_iterations", "rounds")
KEPT = ("inversion.rts", "separation.wavesep", "masking.bet")


def enlarged(method: Method, times: int, echoes: int) -> dict:
    """The arrays of a method, each voxel repeated, each stack repeated to ``echoes`` volumes."""

    def change(name: str, value: np.ndarray) -> np.ndarray:
        kind = ARTIFACTS[name].kind
        if name == "echo_times":
            return 0.005 * np.arange(1, echoes + 1)
        if name == "spin_echo_times":
            return 0.01 * np.arange(1, echoes + 1)
        if kind in STACKED:
            axis = value.ndim - 4
            value = value.take(np.arange(echoes) % value.shape[axis], axis=axis)
        elif name == "b0_directions":
            value = value[np.arange(echoes) % len(value)]
        if kind not in ("volume", "mask", "labels", *STACKED):
            return value
        for axis in (-3, -2, -1):
            value = value.repeat(times, axis=axis)
        if "magnitude" in name or name == "mask_input":
            x, y, z = (np.linspace(-1, 1, n) for n in value.shape[-3:])
            head = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 < HEAD**2
            value = np.where(head, 1 + 0.1 * value, 0.01 * value).astype(np.float32)
        return value

    return inputs(method.consumes if method.stage in EARLY else method.consumes + method.optional, change)


def peak(method: Method, times: int, echoes: int) -> float:
    """Most bytes that a run takes, its inputs not counted."""
    size = FINE if method.stage in EARLY else COARSE
    grid = Grid((SHAPE[0] * times, SHAPE[1] * times, SHAPE[2] * times), (size, size, size))
    given = enlarged(method, times, echoes)
    few = dict(PARAMETERS[method.name])
    if method.name not in KEPT:
        few |= {d.name: min(d.default, FEWEST) for d in method.declared_parameters() if d.name in COUNTED}
    method.run(enlarged(method, 1, echoes), grid.with_shape(SHAPE), few)  # compiles, which is not to be traced
    tracemalloc.start()
    method.run(given, grid, few)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def counts(method: Method) -> tuple[int, ...]:
    """Numbers of echoes (orientations) to measure with, 1 where there is no stack."""
    if not any(ARTIFACTS[name].kind in STACKED for name in method.consumes):
        return (1,)
    return (6, 9) if method.stage == "orientation" else (4, 8)


CASES = [(m, echoes) for m in METHODS.values() if m.stage != "background" for echoes in counts(m)]


def voxels(times: int) -> int:
    return int(np.prod(SHAPE)) * times**3


@pytest.mark.parametrize(("method", "echoes"), CASES, ids=lambda v: v.name if isinstance(v, Method) else str(v))
def test_memory_is_as_declared(method: Method, echoes: int):
    times = FEW_TIMES.get(method.name, TIMES)
    smaller = times // 2 if method.name in CONSTANT_PART else 0
    size, least = voxels(times) - voxels(smaller), np.inf
    declared = method.cost.bytes_for(size, echoes)
    for _ in range(RUNS):
        least = min(least, peak(method, times, echoes) - (peak(method, smaller, echoes) if smaller else 0))
        if least <= 1.2 * declared:
            break
    assert least == pytest.approx(declared, rel=0.2)
