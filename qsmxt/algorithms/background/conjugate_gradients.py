r"""Conjugate gradients for symmetric positive definite operators on volumes, with fused passes over memory.

Solves :math:`A x = b` from :math:`x = 0`. With a preconditioner :math:`P \approx A^{-1}`, also symmetric,

.. math::

    \alpha = \frac{r^T z}{p^T A p}, \quad x \leftarrow x + \alpha p, \quad r \leftarrow r - \alpha A p, \quad z = P r,
    \quad p \leftarrow z + \frac{r^T z}{(r^T z)_{old}}\, p .

Volumes are float32, sums over them float64. Iteration ends when :math:`\|r\| \le \mathrm{tolerance}\,\|b\|`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.registry.methods import Progress

Operator = Callable[[Any], Any]


def solve(
    operator: Operator,
    right: Any,
    *,
    tolerance: float,
    iterations: int,
    precondition: Operator | None = None,
    progress: Progress | None = None,
    engine: Engine = HOST,
) -> tuple[Any, int]:
    """Solution and number of iterations done.

    Parameters
    ----------
    operator, precondition
        Apply A and P. They may return the same buffer each time, but not their argument.
    right
        b, float32 ``(x, y, z)``; it is used as the residual and thereby overwritten.
    tolerance
        Relative residual at which to stop.
    iterations
        Most iterations.
    progress
        Told the fraction done.
    engine
        Where the volumes are.
    """
    length = right.shape[0]
    x = engine.zeros(right.shape)
    residual = right
    start = dot(engine, residual, residual)
    if start == 0:
        return x, 0
    meter = Meter(progress, tolerance, iterations)
    z = residual if precondition is None else precondition(residual)
    direction = engine.copy(z)
    along = start if precondition is None else dot(engine, residual, z)
    for count in range(1, iterations + 1):
        image = operator(direction)
        curvature = dot(engine, direction, image)
        if not curvature > 0:
            return x, count - 1
        step = np.float32(along / curvature)
        square = engine.total(advance, _advance_form, length, x, direction, residual, image, step)
        meter.tell(count, square / start)
        if square <= tolerance * tolerance * start:
            return x, count
        z = residual if precondition is None else precondition(residual)
        new = square if precondition is None else dot(engine, residual, z)
        engine.run(turn, turn_form, length, direction, z, np.float32(new / along))
        along = new
    return x, iterations


class Meter:
    """Tells ``progress`` how far an iteration is: by count, or by the logarithm of the squared relative residual."""

    def __init__(self, progress: Progress | None, tolerance: float, iterations: int) -> None:
        self.progress, self.tolerance, self.iterations = progress, tolerance, iterations
        self.part = 0.0

    def tell(self, count: int, square: float) -> None:
        """Report after ``count`` iterations, with ``square`` the squared residual relative to that of the start."""
        if self.progress is None:
            return
        reached = 0.5 * math.log(max(square, 1e-300)) / math.log(self.tolerance)
        self.part = min(1.0, max(self.part, count / self.iterations, reached))
        self.progress(self.part)


def dot(engine: Engine, a: Any, b: Any) -> float:
    """Scalar product of two volumes."""
    return engine.total(_dot, _dot_form, a.shape[0], a, b)


def _dot_form(xp: Any, a: Any, b: Any) -> Any:
    return xp.sum(a * b, dtype=xp.float64)


def _advance_form(xp: Any, x: Any, direction: Any, residual: Any, image: Any, step: float) -> Any:
    x += step * direction
    residual -= step * image
    return xp.sum(residual * residual, dtype=xp.float64)


def turn_form(xp: Any, direction: Any, z: Any, factor: float) -> None:
    """:func:`turn` on whole arrays."""
    direction *= factor
    direction += z


@kernel
def _dot(start, stop, a, b):
    total = 0.0
    for x in range(start, stop):
        for y in range(a.shape[1]):
            left = a[x, y]
            right = b[x, y]
            part: Any = np.float32(0.0)
            for z in range(left.size):
                part += left[z] * right[z]
            total += part
    return total


@kernel
def advance(start, stop, x, direction, residual, image, step):
    """x += step * direction and residual -= step * image; returns the square of the residual."""
    total = 0.0
    for i in range(start, stop):
        for j in range(x.shape[1]):
            row, along = x[i, j], direction[i, j]
            for k in range(row.size):
                row[k] += step * along[k]
            left, seen = residual[i, j], image[i, j]
            part: Any = np.float32(0.0)
            for k in range(left.size):
                value = left[k] - step * seen[k]
                left[k] = value
                part += value * value
            total += part
    return total


@kernel
def turn(start, stop, direction, z, factor):
    """direction = z + factor * direction."""
    for i in range(start, stop):
        for j in range(direction.shape[1]):
            row, new = direction[i, j], z[i, j]
            for k in range(row.size):
                row[k] = new[k] + factor * row[k]
