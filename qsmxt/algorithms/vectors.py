"""Vectors of iterative solvers, of any shape, float32: sums in double precision in a fixed order, few passes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel

#: Numbers that are summed in single precision before they go into a sum in double precision.
BLOCK = 256


def norm(volume: np.ndarray) -> float:
    """Euclidean norm, summed in float64 in a fixed order."""
    flat = volume.reshape(-1)
    return math.sqrt(float(parallel.total(_square, flat.size, flat)))


def product(a: np.ndarray, b: np.ndarray) -> float:
    """Inner product, summed in float64 in a fixed order."""
    first, second = a.reshape(-1), b.reshape(-1)
    return float(parallel.total(_dot, first.size, first, second))


def scaled(x: np.ndarray, factor: float) -> np.ndarray:
    """``x`` times ``factor``, in its own memory."""
    x *= np.float32(factor)
    return x


def blend(y: np.ndarray, keep: float, x: np.ndarray, add: float) -> float:
    """``y = keep * y + add * x``; returns its norm."""
    first, second = y.reshape(-1), x.reshape(-1)
    total = parallel.total(_mix, first.size, first, np.float32(keep), second, np.float32(add))
    return math.sqrt(float(total))


def add(y: np.ndarray, keep: float, x: np.ndarray, add: float) -> None:
    """``y = keep * y + add * x``."""
    parallel.run(_sum, y.size, y.reshape(-1), np.float32(keep), x.reshape(-1), np.float32(add))


def advance(factors: tuple[float, float, float], v: np.ndarray, h: np.ndarray, hbar: np.ndarray, x: np.ndarray) -> None:
    """``hbar = h + a hbar``, ``x += b hbar``, ``h = v + c h`` with the ``factors`` a, b, c."""
    a, b, c = (np.float32(factor) for factor in factors)
    parallel.run(_move_on, x.size, a, b, c, v.reshape(-1), h.reshape(-1), hbar.reshape(-1), x.reshape(-1))


@kernel
def _square(start, stop, x):
    total = 0.0
    for i in range(start, stop):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


@kernel
def _dot(start, stop, x, y):
    total = 0.0
    for block in range(start, stop, BLOCK):
        part: Any = np.float32(0)
        for i in range(block, min(block + BLOCK, stop)):
            part += x[i] * y[i]
        total += part
    return total


@kernel
def _sum(start, stop, y, keep, x, add):
    for i in range(start, stop):
        y[i] = keep * y[i] + add * x[i]


@kernel
def _mix(start, stop, y, keep, x, add):
    total = 0.0
    for block in range(start, stop, BLOCK):
        part: Any = np.float32(0)
        for i in range(block, min(block + BLOCK, stop)):
            value = keep * y[i] + add * x[i]
            y[i] = value
            part += value * value
        total += part
    return total


@kernel
def _move_on(start, stop, a, b, c, v, h, hbar, x):
    for i in range(start, stop):
        value = h[i] + a * hbar[i]
        hbar[i] = value
        x[i] += b * value
        h[i] = v[i] + c * h[i]
