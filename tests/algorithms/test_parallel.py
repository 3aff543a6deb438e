"""Slabs: complete, ordered, independent of the number of threads."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel


@pytest.fixture(autouse=True)
def _restore():
    yield
    parallel.set_thread_count(None)


@kernel
def _sum(start, stop, x):
    total = 0.0
    for i in range(start, stop):
        total += x[i]
    return total


@kernel
def _square(start, stop, x, out):
    for i in range(start, stop):
        out[i] = x[i] * x[i]


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 1000])
def test_slabs_cover_the_range_once_and_in_order(length):
    pieces = parallel.slabs(length)
    assert [i for a, b in pieces for i in range(a, b)] == list(range(length))
    assert max(b - a for a, b in pieces) - min(b - a for a, b in pieces) <= 1


def test_sums_are_the_same_bytes_for_any_number_of_threads():
    x = np.random.default_rng(0).standard_normal(100_003).astype(np.float32)
    results = set()
    for threads in (1, 2, 3, 8):
        parallel.set_thread_count(threads)
        results.add(float(parallel.total(_sum, x.size, x)).hex())
    assert len(results) == 1
    assert float.fromhex(results.pop()) == pytest.approx(x.astype(np.float64).sum(), abs=1e-3)


def test_every_element_is_written_by_several_threads():
    x = np.arange(1000, dtype=np.float32)
    out = np.zeros_like(x)
    parallel.set_thread_count(4)
    parallel.run(_square, x.size, x, out)
    np.testing.assert_array_equal(out, x * x)


def test_thread_count_follows_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert parallel.thread_count() == 3
    parallel.set_thread_count(5)
    assert parallel.thread_count() == 5
    parallel.set_thread_count(None)
    monkeypatch.setenv("OMP_NUM_THREADS", "nonsense")
    assert parallel.thread_count() >= 1


def _child(connection) -> None:
    parallel.set_thread_count(2)
    x = np.ones(1000, dtype=np.float32)
    connection.send(float(parallel.total(_sum, x.size, x)))
    connection.close()


def test_the_pool_is_made_again_after_a_fork():
    parallel.set_thread_count(2)
    x = np.ones(1000, dtype=np.float32)
    assert float(parallel.total(_sum, x.size, x)) == 1000
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(there,))
    process.start()
    assert here.poll(60)
    assert here.recv() == 1000
    process.join()
