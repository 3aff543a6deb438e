r"""Poisson's equation with zero boundary values in a region of any shape, by multigrid-preconditioned gradients.

.. math:: -\Delta u = q \;\text{in } I, \qquad u = 0 \;\text{outside } I,

with the seven-point Laplacian :math:`\Delta u = \sum_i [u(r+e_i) - 2u(r) + u(r-e_i)] / v_i^2`. Plain conjugate
gradients need a number of steps proportional to the width of I in voxels (some 300 for a brain at 1 mm). One V-cycle as
preconditioner makes it about ten at any size.

The V-cycle: two Chebyshev steps before and after, restriction by full weighting (half the transpose of linear
interpolation an axis), the same operator on every second voxel. An axis along which voxels are much longer than along
the others is not coarsened until they are alike, which keeps the smoother effective for anisotropic voxels. A coarse
voxel belongs to the region if its fine voxel does; the boundary is therefore rough on coarse grids, which conjugate
gradients make good. All steps are symmetric, as the preconditioner has to be.

Lengths in mm; the arrays have at least one layer of voxels outside I on every side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.background import conjugate_gradients
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.rows import span
from qsmxt.registry.methods import Progress

#: Interval of the smoother: eigenvalues of the Laplacian over its diagonal that coarse grids cannot represent.
SMOOTHED = (0.33, 2.0)
#: Axes are coarsened whose voxels are at most this much longer than the shortest.
ALIKE = 1.5
#: Number of voxels of a grid below which it is not coarsened.
COARSEST = 400
#: Sweeps on the coarsest grid.
COARSEST_SWEEPS = 12


@dataclass
class Level:
    """One grid of the hierarchy.

    Attributes
    ----------
    inside
        The region I.
    weights
        One over the squared voxel sizes, float32, (3,).
    coarsened
        By which factor each axis is coarsened to the next grid, 1 or 2.
    right, first, second
        Buffers: right-hand side, solution, and scratch.
    """

    inside: np.ndarray
    weights: np.ndarray
    coarsened: tuple[int, int, int]
    right: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @property
    def diagonal(self) -> np.float32:
        """The operator's diagonal."""
        return np.float32(2 * self.weights.sum(dtype=np.float64))


def _factors(shape: tuple[int, ...], sizes: list[float]) -> tuple[int, int, int]:
    long_enough = [n > 4 for n in shape]
    candidates = [v for v, good in zip(sizes, long_enough, strict=True) if good]
    if not candidates:
        return 1, 1, 1
    least = min(candidates)
    x, y, z = (2 if good and v <= ALIKE * least else 1 for v, good in zip(sizes, long_enough, strict=True))
    return x, y, z


def hierarchy(inside: np.ndarray, voxel_size: tuple[float, float, float]) -> list[Level]:
    """Grids from the finest to the coarsest for the region ``inside`` (bool)."""
    levels = []
    sizes = list(voxel_size)
    while True:
        factors = _factors(inside.shape, sizes)
        if np.count_nonzero(inside) < COARSEST:
            factors = (1, 1, 1)
        weights = np.array([1 / v**2 for v in sizes], dtype=np.float32)
        buffers = [np.zeros(inside.shape, dtype=np.float32) for _ in range(3)]
        levels.append(Level(inside, weights, factors, *buffers))
        if factors == (1, 1, 1):
            return levels
        shape = [(n + f - 1) // f + (f - 1) for n, f in zip(inside.shape, factors, strict=True)]
        coarse = np.zeros(shape, dtype=bool)
        x, y, z = factors
        part = inside[::x, ::y, ::z]
        coarse[: part.shape[0], : part.shape[1], : part.shape[2]] = part
        if not coarse.any():
            levels[-1].coarsened = (1, 1, 1)
            return levels
        inside = coarse
        sizes = [v * f for v, f in zip(sizes, factors, strict=True)]


def solve(
    right: np.ndarray,
    inside: np.ndarray,
    voxel_size: tuple[float, float, float],
    *,
    tolerance: float,
    iterations: int,
    progress: Progress | None = None,
) -> tuple[np.ndarray, int]:
    """u of the module's equation, float32, and the number of iterations.

    Parameters
    ----------
    right
        q, float32, zero outside ``inside``; overwritten.
    inside
        I, bool; its outermost layer of voxels must be False.
    voxel_size
        mm.
    tolerance
        Relative residual at which to stop.
    iterations
        Most iterations.
    """
    levels = hierarchy(inside, voxel_size)
    fine = levels[0]
    image = np.zeros_like(right)

    def operator(u: np.ndarray) -> np.ndarray:
        parallel.run(_apply, u.shape[0], u, fine.inside, fine.weights, fine.diagonal, image)
        return image

    def precondition(residual: np.ndarray) -> np.ndarray:
        return _cycle(levels, 0, residual)

    return conjugate_gradients.solve(
        operator, right, tolerance=tolerance, iterations=iterations, precondition=precondition, progress=progress
    )


def negative_laplacian(u: np.ndarray, inside: np.ndarray, voxel_size: tuple[float, float, float]) -> np.ndarray:
    """-Laplacian of ``u`` per mm^2 where ``inside``, whose outermost layer of voxels must be False; 0 elsewhere."""
    weights = np.array([1 / v**2 for v in voxel_size], dtype=np.float32)
    out = np.zeros_like(u)
    diagonal = np.float32(2 * weights.sum(dtype=np.float64))
    parallel.run(_apply, u.shape[0], u, inside, weights, diagonal, out)
    return out


def _steps() -> tuple[np.float32, np.float32]:
    low, high = SMOOTHED
    centre, half = (high + low) / 2, (high - low) / 2
    return np.float32(1 / (centre + half * np.sqrt(0.5))), np.float32(1 / (centre - half * np.sqrt(0.5)))


def _cycle(levels: list[Level], at: int, right: np.ndarray) -> np.ndarray:
    """Approximate solution on grid ``at``, in one of its buffers."""
    level = levels[at]
    one, two = _steps()
    length = right.shape[0]
    diagonal, inside, weights = level.diagonal, level.inside, level.weights
    u, other = level.first, level.second
    parallel.run(_start, length, right, inside, weights, diagonal, one, two, u)
    if at + 1 == len(levels):
        for _ in range(COARSEST_SWEEPS):
            parallel.run(_smooth, length, u, right, inside, weights, diagonal, two, other)
            parallel.run(_smooth, length, other, right, inside, weights, diagonal, one, u)
            u, other = u, other
        return u
    coarse = levels[at + 1]
    parallel.run(_residual, length, u, right, inside, weights, diagonal, other)
    factors = np.array(level.coarsened)
    parallel.run(_restrict, coarse.right.shape[0], other, factors, coarse.inside, coarse.right)
    correction = _cycle(levels, at + 1, coarse.right)
    parallel.run(_prolong, length, correction, factors, inside, u)
    parallel.run(_smooth, length, u, right, inside, weights, diagonal, two, other)
    parallel.run(_smooth, length, other, right, inside, weights, diagonal, one, u)
    return u


@kernel
def _apply(start, stop, u, inside, weights, diagonal, out):
    wx, wy, wz = weights[0], weights[1], weights[2]
    for x in range(start, stop):
        for y in range(u.shape[1]):
            keep = inside[x, y]
            a, b = span(keep)
            if a == b:
                continue
            row, line = out[x, y], u[x, y]
            left, right, front, back = u[x - 1, y], u[x + 1, y], u[x, y - 1], u[x, y + 1]
            for z in range(a, b):
                value = diagonal * line[z] - wx * (left[z] + right[z]) - wy * (front[z] + back[z])
                value -= wz * (line[z - 1] + line[z + 1])
                row[z] = value if keep[z] else np.float32(0.0)


@kernel
def _residual(start, stop, u, b, inside, weights, diagonal, out):
    wx, wy, wz = weights[0], weights[1], weights[2]
    for x in range(start, stop):
        for y in range(u.shape[1]):
            keep = inside[x, y]
            a, e = span(keep)
            if a == e:
                continue
            row, line, source = out[x, y], u[x, y], b[x, y]
            left, right, front, back = u[x - 1, y], u[x + 1, y], u[x, y - 1], u[x, y + 1]
            for z in range(a, e):
                value = diagonal * line[z] - wx * (left[z] + right[z]) - wy * (front[z] + back[z])
                value -= wz * (line[z - 1] + line[z + 1])
                row[z] = source[z] - value if keep[z] else np.float32(0.0)


@kernel
def _smooth(start, stop, u, b, inside, weights, diagonal, step, out):
    """out = u + step / diagonal (b - A u)."""
    wx, wy, wz = weights[0], weights[1], weights[2]
    factor = step / diagonal
    for x in range(start, stop):
        for y in range(u.shape[1]):
            keep = inside[x, y]
            a, e = span(keep)
            if a == e:
                continue
            row, line, source = out[x, y], u[x, y], b[x, y]
            left, right, front, back = u[x - 1, y], u[x + 1, y], u[x, y - 1], u[x, y + 1]
            for z in range(a, e):
                value = diagonal * line[z] - wx * (left[z] + right[z]) - wy * (front[z] + back[z])
                value -= wz * (line[z - 1] + line[z + 1])
                row[z] = line[z] + factor * (source[z] - value) if keep[z] else np.float32(0.0)


@kernel
def _start(start, stop, b, inside, weights, diagonal, one, two, out):
    """Two steps from zero: ((one + two) b - one two / diagonal A b) / diagonal."""
    wx, wy, wz = weights[0], weights[1], weights[2]
    plain = (one + two) / diagonal
    factor = one * two / (diagonal * diagonal)
    for x in range(start, stop):
        for y in range(b.shape[1]):
            keep = inside[x, y]
            a, e = span(keep)
            if a == e:
                continue
            row, line = out[x, y], b[x, y]
            left, right, front, back = b[x - 1, y], b[x + 1, y], b[x, y - 1], b[x, y + 1]
            for z in range(a, e):
                value = diagonal * line[z] - wx * (left[z] + right[z]) - wy * (front[z] + back[z])
                value -= wz * (line[z - 1] + line[z + 1])
                row[z] = plain * line[z] - factor * value if keep[z] else np.float32(0.0)


@kernel
def _restrict(start, stop, fine, factors, inside, coarse):
    """Full weighting: half the sum of a voxel and half its two neighbours along every coarsened axis."""
    fx, fy, fz = factors[0], factors[1], factors[2]
    nz = fine.shape[2]
    line = np.empty(nz, dtype=np.float32)
    for x in range(start, stop):
        for y in range(coarse.shape[1]):
            keep = inside[x, y]
            a, e = span(keep)
            out = coarse[x, y]
            if a == e:
                continue
            line[:] = np.float32(0.0)
            for i in range(1 - fx, fx):
                wx = np.float32(1.0) if fx == 1 else (np.float32(0.5) if i == 0 else np.float32(0.25))
                for j in range(1 - fy, fy):
                    wy = np.float32(1.0) if fy == 1 else (np.float32(0.5) if j == 0 else np.float32(0.25))
                    row = fine[fx * x + i, fy * y + j]
                    weight = wx * wy
                    for z in range(nz):
                        line[z] += weight * row[z]
            if fz == 1:
                for z in range(a, e):
                    out[z] = line[z] if keep[z] else np.float32(0.0)
            else:
                for z in range(a, e):
                    k = 2 * z
                    value = np.float32(0.5) * line[k] + np.float32(0.25) * (line[k - 1] + line[k + 1])
                    out[z] = value if keep[z] else np.float32(0.0)


@kernel
def _prolong(start, stop, coarse, factors, inside, fine):
    """Add the linear interpolation of ``coarse`` to ``fine`` inside the region."""
    fx, fy, fz = factors[0], factors[1], factors[2]
    ncz = coarse.shape[2]
    line = np.empty(ncz, dtype=np.float32)
    for x in range(start, stop):
        x0 = x // fx
        x1 = x0 + (x % fx)
        for y in range(fine.shape[1]):
            keep = inside[x, y]
            a, e = span(keep)
            if a == e:
                continue
            y0 = y // fy
            y1 = y0 + (y % fy)
            p, q, r, s = coarse[x0, y0], coarse[x1, y0], coarse[x0, y1], coarse[x1, y1]
            for z in range(ncz):
                line[z] = np.float32(0.25) * (p[z] + q[z] + r[z] + s[z])
            row = fine[x, y]
            if fz == 1:
                for z in range(a, e):
                    if keep[z]:
                        row[z] += line[z]
            else:
                for z in range(a, e):
                    if keep[z]:
                        z0 = z // 2
                        row[z] += np.float32(0.5) * (line[z0] + line[z0 + z % 2])
