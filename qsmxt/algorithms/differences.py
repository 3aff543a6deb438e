r"""Periodic forward differences, their adjoint, and the fused shrinkage step of total-variation solvers.

.. math::

    (\nabla x)_i(r) = \frac{x(r + e_i) - x(r)}{v_i}, \qquad
    (\nabla^T y)(r) = \sum_i \frac{y_i(r - e_i) - y_i(r)}{v_i},

with :math:`v_i` the voxel size (mm) and periodic indices, so that :math:`\nabla^T\nabla` has exactly the symbol
:func:`qsmxt.algorithms.kernels.negative_laplacian`. A gradient is C-contiguous, float32, ``(3, x, y, z)``, in units of
the volume per mm. An axis of one voxel has zero differences.

The step that dominates the alternating direction method of multipliers (ADMM) for :math:`\lambda\|\nabla x\|_1` is

.. math::

    v = \nabla x + u, \quad z = \mathrm{shrink}(v, t), \quad u \leftarrow v - z = \mathrm{clip}(v, -t, t), \quad
    \text{and then } \nabla^T(z - u) = \nabla^T(v - 2u).

:class:`Shrinkage` does all of it in one pass and keeps only :math:`u`. Over-relaxed by :math:`\alpha` the step is

.. math:: v \leftarrow \alpha\nabla x + (1 - \alpha)(v - u) + u .

With :math:`y \leftarrow \alpha x + (1 - \alpha) y` and :math:`e \leftarrow (1 - \alpha) e + \alpha u` this is
:math:`v = \nabla y + e`, so :math:`y` and :math:`e` are kept, of which :math:`e` is 0 where there is no threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.geometry import Grid

#: Stands for an infinite limit: far beyond any gradient, and finite in float32 times any threshold.
UNLIMITED = 1e25


def inverse_sizes(grid: Grid) -> np.ndarray:
    """One over the voxel size (1/mm), float32, shape (3,)."""
    return np.array([1.0 / v for v in grid.voxel_size], dtype=np.float32)


def gradient(volume: np.ndarray, grid: Grid, out: np.ndarray | None = None) -> np.ndarray:
    """Forward differences of ``volume`` per mm, float32 ``(3, x, y, z)``.

    >>> grid = Grid((2, 1, 2), (0.5, 1.0, 1.0))
    >>> gradient(np.array([[[0, 0]], [[1, 0]]], dtype=np.float32), grid)[0].ravel().tolist()
    [2.0, 0.0, -2.0, 0.0]
    """
    volume = np.ascontiguousarray(volume, dtype=np.float32)
    if out is None:
        out = np.empty((3, *volume.shape), dtype=np.float32)
    parallel.run(_gradient, volume.shape[0], volume, inverse_sizes(grid), out)
    return out


def divergence(field: np.ndarray, grid: Grid, out: np.ndarray | None = None) -> np.ndarray:
    """Adjoint of :func:`gradient` applied to ``field`` ``(3, x, y, z)`` (the negative of the divergence)."""
    field = np.ascontiguousarray(field, dtype=np.float32)
    if out is None:
        out = np.empty(field.shape[1:], dtype=np.float32)
    parallel.run(_divergence, field.shape[1], field, inverse_sizes(grid), out)
    return out


def stiffness(
    volume: np.ndarray, weights: np.ndarray, grid: Grid, out: np.ndarray | None = None, rows: np.ndarray | None = None
) -> np.ndarray:
    r""":math:`\nabla^T V\nabla x` for ``weights`` :math:`V`.

    Parameters
    ----------
    volume
        x, float32 ``(x, y, z)``.
    weights
        Float32 ``(3, x, y, z)``.
    grid
        Sampling.
    out
        Where to write, float32; not ``volume``.
    rows
        Rows out of which the result is zero, because the weights are; bool ``(x, y)``.
    """
    if out is None:
        out = np.empty(volume.shape, dtype=np.float32)
    if rows is None:
        rows = np.ones(volume.shape[:2], dtype=bool)
    parallel.run(_stiffness, volume.shape[0], volume, weights, inverse_sizes(grid), rows, out)
    return out


class Shrinkage:
    r"""State of the split :math:`z = \nabla x` in an ADMM solver: the scaled dual :math:`u` and scratch space.

    Parameters
    ----------
    grid
        Grid of the volumes.
    weights
        Factors of the threshold, float32 ``(x, y, z)``; ``None`` means 1 everywhere.
    relaxation
        Over-relaxation :math:`\alpha`: :math:`\nabla x` is replaced by :math:`\alpha\nabla x + (1-\alpha) z`. Values of
        1.5 to 1.8 save a third of the iterations.
    limit
        Firm shrinkage (Gao and Bruce 1997, Statistica Sinica 7, 855): the clipped value fades to 0 as
        :math:`|v|` grows from the threshold to ``limit`` times the threshold, so that steep edges are not lowered.
        Infinite is the total variation proper.

    Attributes
    ----------
    dual
        :math:`e`, which is :math:`u` if there is no over-relaxation, float32 ``(3, x, y, z)``.
    relaxed
        :math:`y`, float32 ``(x, y, z)``; ``None`` if there is no over-relaxation.
    """

    def __init__(
        self, grid: Grid, weights: np.ndarray | None = None, relaxation: float = 1.0, limit: float = math.inf
    ) -> None:
        nx, ny, nz = grid.shape
        self.grid = grid
        self.dual = np.zeros((3, nx, ny, nz), dtype=np.float32)
        self.relaxed = None if relaxation == 1 else np.zeros(grid.shape, dtype=np.float32)
        self._weights = self._filled = None
        if weights is not None or relaxation != 1 or not math.isinf(limit):
            weights = np.ones((1, 1, nz), dtype=np.float32) if weights is None else weights
            self._weights = np.ascontiguousarray(weights, dtype=np.float32)
            self._filled = self._weights.any(axis=2)
        self._starts = np.array([start for start, _ in parallel.slabs(nx)], dtype=np.int64)
        self._slab = np.zeros(nx, dtype=np.int64)
        self._slab[self._starts] = np.arange(self._starts.size)
        self._halo = np.empty((1, self._starts.size, ny, nz), dtype=np.float32)
        self._inverse = inverse_sizes(grid)
        self._relaxation = np.float32(relaxation)
        self._limit = min(limit, UNLIMITED)

    def step(self, volume: np.ndarray, threshold: float, out: np.ndarray) -> np.ndarray:
        r"""Update the state for ``volume`` and write :math:`\nabla^T(z-u)` to ``out``.

        ``threshold`` is :math:`\lambda/\rho` in units of ``volume`` per mm.
        """
        make = self.planes(self.relax(volume), threshold)
        parallel.run(lambda start, stop: make(start, stop, out[start:stop]), volume.shape[0])
        return out

    def relax(self, volume: np.ndarray) -> np.ndarray:
        """:math:`y` for the next ``volume``."""
        if self.relaxed is None:
            return volume
        parallel.run(_relax, volume.shape[0], volume, self._relaxation, self.relaxed)
        return self.relaxed

    def planes(self, relaxed: np.ndarray, threshold: float) -> Callable[[int, int, np.ndarray], None]:
        """What :meth:`step` does after :meth:`relax`, as a function of a slab and its planes of the result.

        So more can be done with the planes while they are in the cache. It has to be called once for every slab;
        ``relaxed`` must stay as it is until then.
        """
        t, end = np.float32(threshold), np.float32(self._limit * threshold)
        fade = np.float32(1) / max(end - t, np.float32(1e-30))
        np.take(self.dual[0], self._starts - 1, axis=0, out=self._halo[0], mode="wrap")
        limits = t, end, fade, self._relaxation
        state = self.dual, self._halo, self._slab, self._inverse

        def make(start: int, stop: int, out: np.ndarray) -> None:
            _shrink_and_diverge(start, stop, relaxed, limits, self._weights, self._filled, *state, out)

        return make


@kernel
def _difference(upper, lower, factor, out):
    for k in range(out.size):
        out[k] = (upper[k] - lower[k]) * factor


@kernel
def _gradient(start, stop, volume, inverse, out):
    nx, ny, nz = volume.shape
    for i in range(start, stop):
        after = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            below = j + 1 if j + 1 < ny else 0
            row = volume[i, j]
            _difference(volume[after, j], row, inverse[0], out[0, i, j])
            _difference(volume[i, below], row, inverse[1], out[1, i, j])
            _difference(row[1:], row[:-1], inverse[2], out[2, i, j, : nz - 1])
            out[2, i, j, nz - 1] = (row[0] - row[nz - 1]) * inverse[2]


@kernel
def _add_difference(upper, lower, factor, out):
    for k in range(out.size):
        out[k] += (upper[k] - lower[k]) * factor


@kernel
def _divergence(start, stop, field, inverse, out):
    _, nx, ny, nz = field.shape
    for i in range(start, stop):
        before = i - 1 if i > 0 else nx - 1
        for j in range(ny):
            above = j - 1 if j > 0 else ny - 1
            row = field[2, i, j]
            target = out[i, j]
            _difference(field[0, before, j], field[0, i, j], inverse[0], target)
            _add_difference(field[1, i, above], field[1, i, j], inverse[1], target)
            _add_difference(row[:-1], row[1:], inverse[2], target[1:])
            target[0] += (row[nz - 1] - row[0]) * inverse[2]


@kernel
def _flow(upper, lower, weights, factor, out):
    """Weighted difference of two rows, per mm twice."""
    for k in range(out.size):
        out[k] = (upper[k] - lower[k]) * weights[k] * factor


@kernel
def _stiffness(start, stop, x, weights, inverse, rows, out):
    nx, ny, nz = x.shape
    sx, sy, sz = inverse[0] * inverse[0], inverse[1] * inverse[1], inverse[2] * inverse[2]
    plane = np.zeros((ny, nz), dtype=np.float32)
    above = np.empty(nz, dtype=np.float32)
    flow = np.empty(nz, dtype=np.float32)
    before = start - 1 if start > 0 else nx - 1
    for j in range(ny):
        if rows[start, j]:
            _flow(x[start, j], x[before, j], weights[0, before, j], sx, plane[j])
    for i in range(start, stop):
        after = i + 1 if i + 1 < nx else 0
        _flow(x[i, 0], x[i, ny - 1], weights[1, i, ny - 1], sy, above)
        for j in range(ny):
            target, across = out[i, j], plane[j]
            if not rows[i, j]:
                target[:] = 0
                across[:] = 0
                above[:] = 0
                continue
            below = j + 1 if j + 1 < ny else 0
            row, along = x[i, j], weights[2, i, j]
            _flow(row[1:], row[:-1], along[: nz - 1], sz, flow[: nz - 1])
            flow[nz - 1] = (row[0] - row[nz - 1]) * along[nz - 1] * sz
            target[0] = flow[nz - 1] - flow[0]
            for k in range(1, nz):
                target[k] = flow[k - 1] - flow[k]
            _pass_on(x[after, j], row, weights[0, i, j], sx, across, target)
            _pass_on(x[i, below], row, weights[1, i, j], sy, above, target)


@kernel
def _pass_on(upper, lower, weights, factor, flow, out):
    """What flows in less what flows out; that flows into the next row."""
    for k in range(out.size):
        new = (upper[k] - lower[k]) * weights[k] * factor
        out[k] += flow[k] - new
        flow[k] = new


@kernel
def _relax(start, stop, volume, relaxation, relaxed):
    keep = np.float32(1) - relaxation
    for i in range(start, stop):
        for j in range(volume.shape[1]):
            for k in range(volume.shape[2]):
                relaxed[i, j, k] = relaxation * volume[i, j, k] + keep * relaxed[i, j, k]


# Rows are told by array and indices: a view of its own for each of them would take longer than the row.


@kernel
def _advance(upper, a, b, lower, i, j, dual, axis, p, q, factor, t, out, row, shift):
    """Write ``v - 2 u`` of the next step from ``shift`` on, and keep ``u``."""
    for k in range(lower.shape[2]):
        v = (upper[a, b, k] - lower[i, j, k]) * factor + dual[axis, p, q, k]
        u = min(max(v, -t), t)
        dual[axis, p, q, k] = u
        out[row, k + shift] = v - np.float32(2) * u


@kernel
def _advance_firmly(upper, a, b, lower, i, j, dual, axis, p, q, factor, limits, weights, filled, out, row, shift):
    """The same with thresholds of their own, ``u`` that fades to 0, and over-relaxation; ``e`` is kept."""
    threshold, end, fade, relaxation = limits
    keep, length = np.float32(1) - relaxation, lower.shape[2]
    plane = i if filled.size > 1 else 0
    line = j if filled.size > 1 else 0
    some = filled[plane, line]
    for k in range(length if some else 0):
        t = threshold * weights[plane, line, k]
        e = dual[axis, p, q, k]
        v = (upper[a, b, k] - lower[i, j, k]) * factor + e
        u = min(max(v, -t), t) * min(max((end - abs(v)) * fade, np.float32(0)), np.float32(1))
        dual[axis, p, q, k] = keep * e + relaxation * u
        out[row, k + shift] = v - np.float32(2) * u
    for k in range(0 if some else length):
        out[row, k + shift] = (upper[a, b, k] - lower[i, j, k]) * factor


@kernel
def _split(upper, a, b, lower, i, j, dual, axis, p, q, factor, limits, weights, filled, out, row, shift):
    """The first where all weights are 1, else the second."""
    if weights is None:
        _advance(upper, a, b, lower, i, j, dual, axis, p, q, factor, limits[0], out, row, shift)
    else:
        _advance_firmly(upper, a, b, lower, i, j, dual, axis, p, q, factor, limits, weights, filled, out, row, shift)


@kernel
def _leave_and_enter(plane, j, flow, factor, out, i):
    """What enters a row from the plane before less what leaves it; that enters the next."""
    for k in range(out.shape[2]):
        out[i, j, k] = (plane[j, k] - flow[0, k]) * factor
        plane[j, k] = flow[0, k]


@kernel
def _add_flows(above, flow, across, along, factor, out, i, j):
    """The same from the row before and within the row."""
    for k in range(out.shape[2]):
        out[i, j, k] += (above[0, k] - flow[0, k]) * across + (along[0, k] - along[0, k + 1]) * factor
        above[0, k] = flow[0, k]


@kernel
def _shrink_and_diverge(start, stop, volume, limits, weights, filled, dual, halo, slab, inverse, out):
    nx, ny, nz = volume.shape
    plane, along = np.empty((ny, nz), dtype=np.float32), np.empty((1, nz + 1), dtype=np.float32)
    above, flow = np.empty((1, nz), dtype=np.float32), np.empty((1, nz), dtype=np.float32)
    successor, spare = np.empty((1, 1, nz), dtype=np.float32), np.empty((1, 1, 1, nz), dtype=np.float32)
    x, y, z = inverse[0], inverse[1], inverse[2]
    before, at = start - 1 if start > 0 else nx - 1, slab[start]
    for j in range(ny):
        _split(volume, start, j, volume, before, j, halo, 0, at, j, x, limits, weights, filled, plane, j, 0)
    for i in range(start, stop):
        after = i + 1 if i + 1 < nx else 0
        for k in range(nz):
            spare[0, 0, 0, k] = dual[1, i, ny - 1, k]
        _split(volume, i, 0, volume, i, ny - 1, spare, 0, 0, 0, y, limits, weights, filled, above, 0, 0)
        for j in range(ny):
            below = j + 1 if j + 1 < ny else 0
            for k in range(nz - 1):
                successor[0, 0, k] = volume[i, j, k + 1]
            successor[0, 0, nz - 1] = volume[i, j, 0]
            _split(volume, after, j, volume, i, j, dual, 0, i, j, x, limits, weights, filled, flow, 0, 0)
            _leave_and_enter(plane, j, flow, x, out, i - start)
            _split(volume, i, below, volume, i, j, dual, 1, i, j, y, limits, weights, filled, flow, 0, 0)
            _split(successor, 0, 0, volume, i, j, dual, 2, i, j, z, limits, weights, filled, along, 0, 1)
            along[0, 0] = along[0, nz]
            _add_flows(above, flow, y, along, z, out, i - start, j)
