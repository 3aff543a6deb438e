"""CPU seconds of every method at 160^3 beside those measured for QSM.rs 0.20 on the same size (22 % of it brain).

All methods get four echoes and run at their defaults. The CLEAR-SWI of QSM.rs takes one echo, neither corrects the
sensitivity of the coils nor thresholds the magnitude; it has a row of its own with the same work. Beside our whole
method stand its 0.25 s and the 2.0 s of its correction of the sensitivity.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import board, heads
from qsmxt.algorithms import fourier, parallel
from qsmxt.algorithms.engine import Engine
from qsmxt.constants import rad_per_ppm
from qsmxt.phantom.head import Head, HeadSettings
from qsmxt.registry.methods import lookup, methods

#: CPU seconds of QSM.rs (double precision, two cores) by our ``stage.method``.
QSM_RS: dict[str, float] = {
    "unwrapping.romeo": 1.1,
    "background.vsharp": 5.9,
    "background.sharp": 0.7,
    "background.resharp": 12.2,
    "background.ismv": 10.6,
    "background.lbv": 5.4,
    "background.pdf": 196.0,
    "inversion.tkd": 0.24,
    "inversion.tsvd": 0.26,
    "inversion.tikhonov": 0.27,
    "inversion.rts": 5.1,
    "inversion.tv": 6.1,
    "inversion.medi": 14.0,
    "inversion.hdqsm": 18.0,
    "inversion.ndi": 74.0,
    "inversion.ilsqr": 45.0,
    "inversion.tgv": 85.0,
    "relaxometry.arlo": 0.2,
    "swi.clearswi": 2.25,
    "swi.clearswi, one echo": 0.25,
}

#: What CLEAR-SWI does in QSM.rs, as parameters of ours.
ONE_ECHO = {"softplus": False, "sensitivity": 0.0}

#: Runs of which the fastest counts: until they took so many seconds together.
ENOUGH = 1.0

#: Voxels along every axis; of the small cube on which kernels are compiled first.
SIDE = 160
WARM = 40

#: A head of 1.22 mm, of which the brain fills 22 % of the volume.
CASE = HeadSettings(
    voxel_size=(1.22, 1.22, 1.22),
    field_of_view=(1.22 * SIDE, 1.22 * SIDE, 1.22 * SIDE),
    echo_times=(0.004, 0.012, 0.020, 0.028),
    snr=100.0,
    oversampling=1,
)


def table(only: str = "") -> Iterator[tuple[str, float, float, float]]:
    """``(method, our CPU seconds, of them in transforms, theirs)`` for every method that both have, once compiled."""
    head = heads.cached("speed", CASE)
    large, small = arrays(head, SIDE), arrays(head, WARM)
    for row, theirs in QSM_RS.items():
        name, _, echo = row.partition(", ")
        stage, key = name.split(".")
        if only not in row or key not in methods(stage):
            continue
        method = lookup(stage, key)
        given, parameters = (_first_echo(large), ONE_ECHO) if echo else (large, {})
        method.run(small, head.grid.with_shape((WARM,) * 3))
        yield row, *_fastest(lambda m=method, g=given, p=parameters: m.run(g, head.grid, p)), theirs


def _fastest(work: Callable[[], Any]) -> tuple[float, float]:
    """CPU seconds of the fastest of a few runs, and of them in transforms."""
    found: list[tuple[float, float]] = []
    while sum(seconds for seconds, _ in found) < ENOUGH:
        with _transforms_timed() as transforms:
            start = time.process_time()
            work()
            found.append((time.process_time() - start, sum(transforms)))
    return min(found)


@contextmanager
def _transforms_timed() -> Iterator[list[float]]:
    """CPU seconds of every call of a real transform meanwhile."""
    seconds: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.process_time()
            result = function(*arguments)
            seconds.append(time.process_time() - start)
            return result

        return call

    forward, inverse = timed(fourier.forward), timed(fourier.inverse)
    with (
        mock.patch.multiple(fourier, forward=forward, inverse=inverse),
        mock.patch.multiple(Engine, forward=staticmethod(forward), inverse=staticmethod(inverse)),
    ):
        yield seconds


def _first_echo(given: dict[str, Any]) -> dict[str, Any]:
    """The same with one echo."""
    echoes = ("magnitude", "unwrapped_phase", "echo_times")
    return given | {name: given[name][:1] for name in echoes}


def arrays(head: Head, side: int) -> dict[str, Any]:
    """What the methods consume, cut to a cube in the middle of the head."""
    middle = (slice((SIDE - side) // 2, (SIDE - side) // 2 + side),) * 3
    given = board.available(head) | {"total_field": head.total_field, "local_field": head.local_field}
    phase = [rad_per_ppm(head.field_strength, t) * head.total_field for t in head.echo_times]
    given["unwrapped_phase"] = np.stack(phase).astype(np.float32)
    return {
        name: np.ascontiguousarray(value[(..., *middle)]) if np.ndim(value) >= 3 else value
        for name, value in given.items()
    }


def transform_seconds(shape: tuple[int, int, int] = (160, 160, 160)) -> float:
    """CPU seconds of one real transform and its inverse, the unit in which solvers are counted."""
    volume = np.zeros(shape, dtype=np.float32)
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        fourier.inverse(fourier.forward(volume), shape)
        best = min(best, time.process_time() - start)
    return best


def threads() -> int:
    """Threads in use, for the caption."""
    return parallel.thread_count()
