"""A compiled kernel gives the same bytes wherever it comes from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FIT = """
import hashlib
import numpy as np
from qsmxt.algorithms.field.linear_fit import linear_fit
from qsmxt.geometry import Grid
rng = np.random.default_rng(0)
times = np.array([0.005, 0.011, 0.017])
phase = (rng.uniform(-900, 900, (6, 6, 7)) * times[:, None, None, None] + rng.normal(size=(3, 6, 6, 7))).astype("f4")
maps = linear_fit(phase, rng.uniform(1, 9, phase.shape).astype("f4"), times, 3.0, Grid((6, 6, 7)))
print(hashlib.sha256(b"".join(m.tobytes() for m in maps)).hexdigest())
"""


def test_a_run_that_compiles_has_the_bytes_of_one_that_reads_the_cache(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", FIT], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert len(runs[0].strip()) == 64
    assert runs[0] == runs[1]


PAIR = """
import numpy as np
from qsmxt.algorithms.compiled import kernel

@kernel
def inner(values):
    return values[0] * 3 + values.size

@kernel
def outer(values):
    return inner(values) + inner(values[1:])
"""

CALLS = """
import numpy as np
import pair
print(pair.inner(np.array([2.0, 5.0, 7.0])), sum(pair.inner.stats.cache_hits.values()))
"""


def test_a_kernel_is_compiled_with_one_that_came_from_the_cache(tmp_path: Path) -> None:
    (tmp_path / "pair.py").write_text(PAIR, encoding="utf-8")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    last = CALLS + "print(pair.outer(np.array([2.0, 5.0, 7.0])), sum(pair.outer.stats.cache_misses.values()))"
    told = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for code in (CALLS, last)
    ]
    assert told[0].split() == ["9.0", "0"]
    assert told[1].split() == ["9.0", "1", "26.0", "1"]
