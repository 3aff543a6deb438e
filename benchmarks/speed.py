"""CPU seconds of every method at 160^3 beside those measured for QSM.rs 0.20 on the same size (22 % of it brain)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.phantom.head import HeadSettings, simulate
from qsmxt.registry.methods import lookup, methods

#: CPU seconds of QSM.rs (double precision, two cores) by our ``stage.method``.
QSM_RS: dict[str, float] = {
    "unwrapping.romeo": 1.1,
    "background.vsharp": 5.9,
    "background.sharp": 0.7,
    "background.resharp": 12.2,
    "background.ismv": 10.6,
    "background.lbv": 5.4,
    "background.pdf": 47.0,
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
    "swi.clearswi": 0.25,
}

#: 160^3 at 1 mm, 3 T, four echoes.
CASE = HeadSettings(
    voxel_size=(1.0, 1.0, 1.0),
    field_of_view=(160.0, 160.0, 160.0),
    echo_times=(0.004, 0.012, 0.020, 0.028),
    snr=100.0,
)


def table(only: str = "") -> list[tuple[str, float, float]]:
    """``(method, our CPU seconds, theirs)`` for every method that both have; the second run of each counts."""
    head = simulate(CASE)
    arrays: dict[str, Any] = {
        "offset_free_phase": np.angle(np.exp(1j * (head.wrapped_phase - head.phase_offset))).astype(np.float32),
        "magnitude": head.magnitude,
        "echo_times": head.echo_times,
        "field_strength": head.field_strength,
        "mask": head.brain,
        "total_field": head.total_field,
        "local_field": head.local_field,
    }
    arrays["unwrapped_phase"] = lookup("unwrapping", "romeo").run(arrays, head.grid)["unwrapped_phase"]
    rows = []
    for name, theirs in QSM_RS.items():
        if only and only not in name:
            continue
        stage, key = name.split(".")
        if key not in methods(stage):
            continue
        method = lookup(stage, key)
        seconds = 0.0
        for _ in range(2):
            start = time.process_time()
            method.run(arrays, head.grid)
            seconds = time.process_time() - start
        rows.append((name, seconds, theirs))
    return rows


def transform_seconds(shape: tuple[int, int, int] = (160, 160, 160)) -> float:
    """CPU seconds of one real transform and its inverse, the unit in which solvers are counted."""
    from qsmxt.algorithms import fourier

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
