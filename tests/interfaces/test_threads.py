"""Threads of all libraries follow the node."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import numpy, scipy.linalg
from threadpoolctl import threadpool_info
from qsmxt.algorithms import parallel
from qsmxt.interfaces.base import use_threads
use_threads({count})
print(parallel.thread_count(), *sorted({{(pool["user_api"], pool["num_threads"]) for pool in threadpool_info()}}))
import os
print(os.environ["OMP_NUM_THREADS"], os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"])
"""


@pytest.mark.parametrize("count", [1, 2])
def test_every_library_obeys(count: int) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(count=count)], env=environment, capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert first.startswith(str(count))
    assert "('blas', 1)" in first and first.count("blas") == 1, "the order of sums in linear algebra never changes"
    assert second == f"{count} {count}"
