r"""The split of total generalised variation of second order in an ADMM solver.

.. math:: R(\chi) = \min_w \|T(\nabla\chi - w)\|_1 + \kappa\|T\mathcal{E}w\|_1, \qquad
          \mathcal{E}w = (\nabla w + \nabla w^T)/2

with forward differences, :math:`\kappa` (mm) the ``curvature`` and :math:`T` optional weights. Duals :math:`u_1, u_0`
belong to :math:`z_1 = \nabla\chi - w` and :math:`z_0 = \mathcal{E}w`; after every change of :math:`\chi` the field
:math:`w` takes one proximal step,

.. math:: w \leftarrow w + \frac{(\nabla\chi - w - z_1 + u_1) - \kappa\mathcal{E}^T(\mathcal{E}w - z_0 + u_0)}
          {1 + \kappa\|\mathcal{E}\|^2} ,

then both splits are shrunk. The six components of a symmetric tensor are xx, yy, zz, xy, xz, yz; the mixed ones count
twice in sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.differences import divergence, inverse_sizes
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.geometry import Grid


class SecondOrder:
    """Split of the total generalised variation; a :class:`qsmxt.algorithms.inversion.splitting.Prior`.

    Parameters
    ----------
    grid
        Grid of the volumes.
    curvature
        Weight of the second-order term over that of the first, mm; also the ratio of the two ADMM penalties (mm^2).
    weights
        Factors of the thresholds, float32 ``(x, y, z)``; ``None`` means 1 everywhere.

    Attributes
    ----------
    slope
        w, the smooth part of the gradient.
    """

    def __init__(self, grid: Grid, curvature: float, weights: np.ndarray | None = None) -> None:
        self.grid = grid
        self._ratio = np.float32(curvature)
        if weights is None:
            weights = np.ones((1, 1, grid.shape[2]), dtype=np.float32)
        self._weights = np.ascontiguousarray(weights, dtype=np.float32)
        self.slope = np.zeros((3, *grid.shape), dtype=np.float32)
        self._first = np.zeros((3, *grid.shape), dtype=np.float32)  # z1 - u1 + w
        self._first_dual = np.zeros((3, *grid.shape), dtype=np.float32)
        self._second = np.zeros((6, *grid.shape), dtype=np.float32)  # z0 - u0, for a moment E w - z0 + u0
        self._second_dual = np.zeros((6, *grid.shape), dtype=np.float32)
        self._inverse = inverse_sizes(grid)
        norm = 4 * float((self._inverse.astype(np.float64) ** 2).sum())
        self._step = np.float32(1 / (1 + curvature * norm))

    def step(self, volume: np.ndarray, threshold: float, out: np.ndarray) -> np.ndarray:
        """See :meth:`qsmxt.algorithms.inversion.splitting.Prior.step`."""
        nx, inverse, limit = volume.shape[0], self._inverse, np.float32(threshold)
        parallel.run(_residual, nx, self.slope, self._second, inverse)
        parallel.run(_move, nx, volume, self.slope, self._first, self._second, inverse, self._ratio, self._step)
        parallel.run(
            _shrink_first, nx, volume, self.slope, self._first, self._first_dual, inverse, limit, self._weights
        )
        parallel.run(_shrink_second, nx, self.slope, self._second, self._second_dual, inverse, limit, self._weights)
        return divergence(self._first, self.grid, out)


#: Axes of the components of a symmetric tensor.
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


class _ArraySecondOrder:
    """:class:`SecondOrder` on arrays of another library, all of one component at a time."""

    def __init__(self, engine: Engine, grid: Grid, curvature: float, weights: np.ndarray | None) -> None:
        self._engine, self._sizes, self._ratio = engine, grid.voxel_size, curvature
        self._weights = 1.0 if weights is None else engine.send(weights)
        self.slope, self._first, self._first_dual = ([engine.zeros(grid.shape) for _ in range(3)] for _ in range(3))
        self._second, self._second_dual = ([engine.zeros(grid.shape) for _ in PAIRS] for _ in range(2))
        self._step = 1 / (1 + 4 * curvature * sum(1 / v**2 for v in grid.voxel_size))

    def _difference(self, volume: Any, axis: int) -> Any:
        return (self._engine.xp.roll(volume, -1, axis=axis) - volume) / self._sizes[axis]

    def _backward(self, volume: Any, axis: int) -> Any:
        return (volume - self._engine.xp.roll(volume, 1, axis=axis)) / self._sizes[axis]

    def _tensor(self, a: int, b: int) -> Any:
        """A component of ``E w``."""
        return (self._difference(self.slope[a], b) + self._difference(self.slope[b], a)) / 2

    def _shrunk(self, value: Any, dual: Any, limit: Any) -> tuple[Any, Any]:
        """``z - u`` and the new dual."""
        xp, v = self._engine.xp, value + dual
        u = xp.minimum(xp.maximum(v, -limit), limit)
        return v - 2 * u, u

    def step(self, volume: Any, threshold: float, out: Any) -> Any:
        """See :meth:`qsmxt.algorithms.inversion.splitting.Prior.step`."""
        residual = {pair: self._tensor(*pair) - z for pair, z in zip(PAIRS, self._second, strict=True)}
        slopes = [self._difference(volume, axis) for axis in range(3)]
        for axis, slope in enumerate(self.slope):
            pull = sum(self._backward(residual[min(axis, b), max(axis, b)], b) for b in range(3))
            slope += self._step * (slopes[axis] - self._first[axis] + self._ratio * pull)
        del residual
        limit = threshold * self._weights + self._engine.zeros((1, 1, 1))
        out[...] = 0
        for axis, slope in enumerate(self.slope):
            shrunk, self._first_dual[axis] = self._shrunk(slopes[axis] - slope, self._first_dual[axis], limit)
            self._first[axis] = shrunk + slope
            out -= self._backward(self._first[axis], axis)
        for n, pair in enumerate(PAIRS):
            self._second[n], self._second_dual[n] = self._shrunk(self._tensor(*pair), self._second_dual[n], limit)
        return out


def second_order(engine: Engine, grid: Grid, curvature: float, weights: np.ndarray | None = None) -> Any:
    """:class:`SecondOrder`, or the same where ``engine`` computes."""
    if engine is HOST:
        return SecondOrder(grid, curvature, weights)
    return _ArraySecondOrder(engine, grid, curvature, weights)


@kernel
def _set(upper, lower, factor, out):
    for k in range(out.size):
        out[k] = (upper[k] - lower[k]) * factor


@kernel
def _add(upper, lower, factor, out):
    for k in range(out.size):
        out[k] += (upper[k] - lower[k]) * factor


@kernel
def _set_last(row, factor, out):
    """Periodic forward difference along the row."""
    n = row.size
    _set(row[1:], row[:-1], factor, out[: n - 1])
    out[n - 1] = (row[0] - row[n - 1]) * factor


@kernel
def _add_last(row, factor, out):
    n = row.size
    _add(row[1:], row[:-1], factor, out[: n - 1])
    out[n - 1] += (row[0] - row[n - 1]) * factor


@kernel
def _subtract_last_adjoint(row, factor, out):
    """``out -= factor * (row[k - 1] - row[k])``, periodic."""
    n = row.size
    _add(row[1:], row[:-1], factor, out[1:])
    out[0] += (row[0] - row[n - 1]) * factor


@kernel
def _tensor_row(w, component, i, j, inverse, out):
    """One row of a component of ``E w``."""
    _, nx, ny, _ = w.shape
    a = i + 1 if i + 1 < nx else 0
    b = j + 1 if j + 1 < ny else 0
    half = np.float32(0.5)
    if component == 0:
        _set(w[0, a, j], w[0, i, j], inverse[0], out)
    elif component == 1:
        _set(w[1, i, b], w[1, i, j], inverse[1], out)
    elif component == 2:
        _set_last(w[2, i, j], inverse[2], out)
    elif component == 3:
        _set(w[1, a, j], w[1, i, j], half * inverse[0], out)
        _add(w[0, i, b], w[0, i, j], half * inverse[1], out)
    elif component == 4:
        _set(w[2, a, j], w[2, i, j], half * inverse[0], out)
        _add_last(w[0, i, j], half * inverse[2], out)
    else:
        _set(w[2, i, b], w[2, i, j], half * inverse[1], out)
        _add_last(w[1, i, j], half * inverse[2], out)


@kernel
def _subtract_from(row, out):
    for k in range(out.size):
        out[k] = row[k] - out[k]


@kernel
def _residual(start, stop, slope, second, inverse):
    row = np.empty(slope.shape[3], dtype=np.float32)
    for i in range(start, stop):
        for j in range(slope.shape[2]):
            for n in range(6):
                _tensor_row(slope, n, i, j, inverse, row)
                _subtract_from(row, second[n, i, j])


@kernel
def _advance(row, first, step, w):
    for k in range(w.size):
        w[k] += step * (row[k] - first[k])


@kernel
def _move(start, stop, volume, slope, first, second, inverse, ratio, step):
    nx, ny, nz = volume.shape
    row = np.empty(nz, dtype=np.float32)
    rx, ry, rz = ratio * inverse[0], ratio * inverse[1], ratio * inverse[2]
    for i in range(start, stop):
        after, before = (i + 1 if i + 1 < nx else 0), (i - 1 if i > 0 else nx - 1)
        for j in range(ny):
            below, above = (j + 1 if j + 1 < ny else 0), (j - 1 if j > 0 else ny - 1)
            x = volume[i, j]
            _set(volume[after, j], x, inverse[0], row)
            _add(second[0, i, j], second[0, before, j], rx, row)
            _add(second[3, i, j], second[3, i, above], ry, row)
            _subtract_last_adjoint(second[4, i, j], rz, row)
            _advance(row, first[0, i, j], step, slope[0, i, j])
            _set(volume[i, below], x, inverse[1], row)
            _add(second[3, i, j], second[3, before, j], rx, row)
            _add(second[1, i, j], second[1, i, above], ry, row)
            _subtract_last_adjoint(second[5, i, j], rz, row)
            _advance(row, first[1, i, j], step, slope[1, i, j])
            _set_last(x, inverse[2], row)
            _add(second[4, i, j], second[4, before, j], rx, row)
            _add(second[5, i, j], second[5, i, above], ry, row)
            _subtract_last_adjoint(second[2, i, j], rz, row)
            _advance(row, first[2, i, j], step, slope[2, i, j])


@kernel
def _shrink_slope(row, w, dual, limit, weights, out):
    for k in range(out.size):
        t = limit * weights[k]
        v = row[k] - w[k] + dual[k]
        u = min(max(v, -t), t)
        dual[k] = u
        out[k] = v - 2 * u + w[k]


@kernel
def _shrink_first(start, stop, volume, slope, first, dual, inverse, limit, weights):
    nx, ny, nz = volume.shape
    full = weights.shape[0] > 1 or weights.shape[1] > 1
    row = np.empty(nz, dtype=np.float32)
    for i in range(start, stop):
        after = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            below = j + 1 if j + 1 < ny else 0
            t = weights[i, j] if full else weights[0, 0]
            x = volume[i, j]
            _set(volume[after, j], x, inverse[0], row)
            _shrink_slope(row, slope[0, i, j], dual[0, i, j], limit, t, first[0, i, j])
            _set(volume[i, below], x, inverse[1], row)
            _shrink_slope(row, slope[1, i, j], dual[1, i, j], limit, t, first[1, i, j])
            _set_last(x, inverse[2], row)
            _shrink_slope(row, slope[2, i, j], dual[2, i, j], limit, t, first[2, i, j])


@kernel
def _shrink_tensor(row, dual, limit, weights, out):
    for k in range(out.size):
        t = limit * weights[k]
        v = row[k] + dual[k]
        u = min(max(v, -t), t)
        dual[k] = u
        out[k] = v - 2 * u


@kernel
def _shrink_second(start, stop, slope, second, dual, inverse, limit, weights):
    full = weights.shape[0] > 1 or weights.shape[1] > 1
    row = np.empty(slope.shape[3], dtype=np.float32)
    for i in range(start, stop):
        for j in range(slope.shape[2]):
            t = weights[i, j] if full else weights[0, 0]
            for n in range(6):
                _tensor_row(slope, n, i, j, inverse, row)
                _shrink_tensor(row, dual[n, i, j], limit, t, second[n, i, j])
