r"""Conjugate gradients for symmetric positive definite operators on volumes, with fused passes over memory.

Solves :math:`A x = b` from :math:`x = 0`. With a preconditioner :math:`P \approx A^{-1}`, also symmetric,

.. math::

    \alpha = \frac{r^T z}{p^T A p}, \quad x \leftarrow x + \alpha p, \quad r \leftarrow r - \alpha A p, \quad z = P r,
    \quad p \leftarrow z + \frac{r^T z}{(r^T z)_{old}}\, p .

Volumes are float32, sums over them float64. Iteration ends when :math:`\|r\| \le \mathrm{tolerance}\,\|b\|`.

Passes over volumes that are as large as these take as long as their transforms. :func:`solve_fused` hands the new
direction to the operator as a pass that makes it (:class:`qsmxt.algorithms.engine.Pass`), which a transform takes
along, and the step of x with it; likewise the new residual to the preconditioner.
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

#: Product of an operator with a volume, and the scalar product of both. What is not ``None`` besides makes the volume.
FusedOperator = Callable[[Any, Any], tuple[Any, float]]


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
    return solve_fused(
        _fused(operator, engine),
        right,
        tolerance=tolerance,
        iterations=iterations,
        precondition=None if precondition is None else _fused(precondition, engine),
        progress=progress,
        engine=engine,
    )


def _fused(operator: Operator, engine: Engine) -> FusedOperator:
    """An operator that takes no passes along."""

    def product(volume: Any, make: Any) -> tuple[Any, float]:
        if make is not None:
            engine.do(make, volume.shape[0])
        image = operator(volume)
        return image, dot(engine, volume, image)

    return product


def solve_fused(
    operator: FusedOperator,
    right: Any,
    *,
    tolerance: float,
    iterations: int,
    precondition: FusedOperator | None = None,
    progress: Progress | None = None,
    engine: Engine = HOST,
) -> tuple[Any, int]:
    """:func:`solve` with operators that take passes along."""
    length = right.shape[0]
    x = engine.zeros(right.shape)
    residual, make = right, None
    start = dot(engine, residual, residual)
    if start == 0:
        return x, 0
    meter = Meter(progress, tolerance, iterations)
    z, along = (residual, start) if precondition is None else precondition(residual, None)
    direction = engine.copy(z)
    for count in range(1, iterations + 1):
        image, curvature = operator(direction, make)
        if not curvature > 0:
            return x, count - 1
        step = np.float32(along / curvature)
        retreat = engine.passing(_retreat, _retreat_form, image, step, residual)
        if precondition is None or count == iterations:
            engine.do(retreat, length)
        else:
            z, new = precondition(residual, retreat)
        square = retreat.total
        meter.tell(count, square / start)
        if square <= tolerance * tolerance * start or count == iterations:
            engine.add(x, 1.0, direction, float(step))
            return x, count
        new = square if precondition is None else new
        make = engine.passing(_move, _move_form, direction, step, x, z, np.float32(new / along))
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
    return engine.total(dot_rows, dot_form, a.shape[0], a, b)


def dot_form(xp: Any, a: Any, b: Any) -> Any:
    """:func:`dot_rows` on whole arrays."""
    return xp.sum(a * b, dtype=xp.float64)


def _retreat_form(xp: Any, image: Any, step: float, residual: Any) -> Any:
    residual -= step * image
    return xp.sum(residual * residual, dtype=xp.float64)


def _move_form(xp: Any, direction: Any, step: float, x: Any, z: Any, factor: float) -> None:
    x += step * direction
    direction *= factor
    direction += z


def turn_form(xp: Any, direction: Any, z: Any, factor: float) -> None:
    """:func:`turn` on whole arrays."""
    direction *= factor
    direction += z


@kernel
def dot_rows(start, stop, a, b):
    """Scalar product of planes."""
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
def _retreat(start, stop, image, step, residual):
    """residual -= step * image; returns its square."""
    total = 0.0
    for i in range(start, stop):
        for j in range(residual.shape[1]):
            left, seen = residual[i, j], image[i, j]
            part: Any = np.float32(0.0)
            for k in range(left.size):
                value = left[k] - step * seen[k]
                left[k] = value
                part += value * value
            total += part
    return total


@kernel
def _move(start, stop, direction, step, x, z, factor):
    """x += step * direction, and then direction = z + factor * direction."""
    for i in range(start, stop):
        for j in range(x.shape[1]):
            row, along, new = x[i, j], direction[i, j], z[i, j]
            for k in range(row.size):
                old = along[k]
                row[k] += step * old
                along[k] = new[k] + factor * old


@kernel
def turn(start, stop, direction, z, factor):
    """direction = z + factor * direction."""
    for i in range(start, stop):
        for j in range(direction.shape[1]):
            row, new = direction[i, j], z[i, j]
            for k in range(row.size):
                row[k] = new[k] + factor * row[k]
