"""Kernels on fixed slabs in a thread pool.

The slabs depend on the array and never on the number of threads, and partial sums are added in the order of
the slabs, so results are the same bytes for any number of threads. One pool per process, made when it is
first needed and again after a fork.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

#: Number of slabs that a volume is cut into.
SLABS = 32

_threads = 0
_pool: tuple[int, int, ThreadPoolExecutor] | None = None


def set_thread_count(count: int | None) -> None:
    """Let kernels and FFTs use ``count`` threads (``None``: ``OMP_NUM_THREADS``, else all processors)."""
    global _threads
    _threads = max(0, int(count or 0))


def thread_count() -> int:
    """Number of threads that kernels and FFTs use."""
    if _threads:
        return _threads
    declared = os.environ.get("OMP_NUM_THREADS", "")
    if declared.isdigit() and int(declared) > 0:
        return int(declared)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _executor(threads: int) -> ThreadPoolExecutor:
    global _pool
    key = (os.getpid(), threads)
    if _pool is None or _pool[:2] != key:
        _pool = (*key, ThreadPoolExecutor(threads, thread_name_prefix="qsmxt"))
    return _pool[2]


def slabs(length: int, count: int = SLABS) -> list[tuple[int, int]]:
    """Cut ``range(length)`` into at most ``count`` nearly equal pieces ``(start, stop)``."""
    count = max(1, min(count, length))
    edges = [length * i // count for i in range(count + 1)]
    return [(a, b) for a, b in itertools.pairwise(edges) if b > a]


def run(
    kernel: Callable[..., Any], length: int, *arguments: Any, progress: Callable[[float], None] | None = None
) -> list[Any]:
    """Call ``kernel(start, stop, *arguments)`` on every slab of ``range(length)``; results in slab order.

    ``progress`` is called with the part of the slabs that is done.
    """
    pieces = slabs(length)
    threads = min(thread_count(), len(pieces))
    if threads <= 1:
        results = (kernel(start, stop, *arguments) for start, stop in pieces)
    else:
        pool = _executor(threads)
        tasks = [pool.submit(kernel, start, stop, *arguments) for start, stop in pieces]
        results = (task.result() for task in tasks)
    if progress is None:
        return list(results)
    made = []
    for result in results:
        made.append(result)
        progress(len(made) / len(pieces))
    return made


def total(kernel: Callable[..., Any], length: int, *arguments: Any) -> Any:
    """Sum of what ``kernel`` returns over the slabs, float64, always in the same order."""
    parts = run(kernel, length, *arguments)
    return np.asarray(parts, dtype=np.float64).sum(axis=0)
