r"""Harmonic continuation: the Laplace equation inside a mask with the values on its outermost voxels.

.. math:: \nabla^2 u = 0 \;\text{in the interior}, \qquad u = f \;\text{on the boundary},

with the 7-point Laplacian :math:`\sum_a (u(r+e_a) + u(r-e_a) - 2u(r))/v_a^2`. A voxel of the mask is interior if all
its six neighbours lie in the mask; the others are the boundary. Solved by flexible conjugate gradients, preconditioned
by one multigrid V-cycle (red-black Gauss-Seidel, means over the children down, trilinear interpolation up, only the
axes of finer sampling are coarsened), six iterations to 1e-5 on a brain.

References: Zhou et al. 2014 (doi:10.1002/nbm.3064).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import bounding_box
from qsmxt.geometry import Grid

#: Sweeps before and after the correction from the coarser level.
SWEEPS = 2
#: Sweeps on the coarsest level.
COARSEST_SWEEPS = 20


@dataclass
class _Level:
    """One grid of the hierarchy: unknowns, stencil weights, solution, right-hand side, residual."""

    unknown: np.ndarray
    weights: np.ndarray
    solution: np.ndarray
    right: np.ndarray
    residual: np.ndarray
    factors: tuple[int, int, int] = (1, 1, 1)


def interior(mask: np.ndarray) -> np.ndarray:
    """Voxels of ``mask`` all six neighbours of which lie in it; the border of the volume is outside."""
    inside = mask.copy()
    for axis in range(3):
        lower = [slice(None)] * 3
        upper = [slice(None)] * 3
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        inside[tuple(lower)] &= mask[tuple(upper)]
        inside[tuple(upper)] &= mask[tuple(lower)]
        for end in (0, -1):
            edge = [slice(None)] * 3
            edge[axis] = end  # type: ignore[call-overload]
            inside[tuple(edge)] = False
    return inside


def harmonic_continuation(
    field: np.ndarray, mask: np.ndarray, grid: Grid, *, tolerance: float = 1e-5, iterations: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Harmonic function inside ``mask`` with the boundary values of ``field``, and the interior of the mask.

    Parameters
    ----------
    field
        Float32 volume, finite on the boundary of the mask; its unit is that of the result.
    mask
        Bool volume, not empty.
    grid
        Sampling of both.
    tolerance
        Residual relative to that of the start (zero inside) at which iteration stops.
    iterations
        Most iterations.

    Returns
    -------
    tuple
        The continuation, float32, equal to ``field`` on the boundary and zero outside the mask; the interior, bool.

    Examples
    --------
    A harmonic polynomial is its own continuation:

    >>> import numpy as np
    >>> x, y, z = np.meshgrid(*[np.arange(-8.0, 9)] * 3, indexing="ij")
    >>> mask = x**2 + y**2 + z**2 < 50
    >>> f = (x * y + 2 * z**2 - x**2 - y**2).astype(np.float32)
    >>> u, inside = harmonic_continuation(f, mask, Grid(f.shape))
    >>> bool(np.abs(u - f)[mask].max() < 1e-3)
    True
    """
    inside = interior(mask)
    out = np.where(mask & ~inside, field, np.float32(0)).astype(np.float32)
    if not inside.any():
        return out, inside
    start, stop = bounding_box(mask)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    levels = _hierarchy(inside[box], grid)
    values = np.zeros(levels[0].unknown.shape, dtype=np.float32)
    target = tuple(slice(1, 1 + b - a) for a, b in zip(start, stop, strict=True))
    values[target] = out[box]
    _solve(values, levels, tolerance, iterations)
    out[box] = values[target]
    return out, inside


def _hierarchy(inside: np.ndarray, grid: Grid) -> list[_Level]:
    """Levels from fine to coarse; every level has a rim of at least one voxel that is no unknown."""
    shape = np.array(inside.shape) + 2
    size = np.array(grid.voxel_size)
    steps: list[tuple[int, ...]] = []
    coarse, spacing = shape.astype(float), size.copy()
    while coarse.max() > 8 and len(steps) < 7:
        factors = tuple(2 if s < 1.6 * spacing.min() and n > 4 else 1 for s, n in zip(spacing, coarse, strict=True))
        if max(factors) == 1:
            break
        steps.append(factors)
        coarse, spacing = np.ceil(coarse / factors), spacing * factors
    multiple = np.prod(np.array(steps, dtype=int).reshape(-1, 3), axis=0) if steps else np.ones(3, dtype=int)
    padded = (np.ceil(shape / multiple) * multiple).astype(int)
    unknown = np.zeros(padded, dtype=bool)
    unknown[tuple(slice(1, 1 + n) for n in inside.shape)] = inside
    levels = [_level(unknown, size)]
    for factors in steps:
        fx, fy, fz = factors
        nx, ny, nz = (n // f for n, f in zip(unknown.shape, factors, strict=True))
        unknown = unknown.reshape(nx, fx, ny, fy, nz, fz).mean(axis=(1, 3, 5), dtype=np.float32) >= 0.5
        for axis in range(3):
            np.moveaxis(unknown, axis, 0)[[0, -1]] = False
        if not unknown.any():
            break
        size = size * np.array(factors)
        levels.append(_level(unknown, size))
        levels[-2].factors = (fx, fy, fz)
    return levels


def _level(unknown: np.ndarray, size: np.ndarray) -> _Level:
    solution, right, residual = (np.zeros(unknown.shape, dtype=np.float32) for _ in range(3))
    return _Level(np.ascontiguousarray(unknown), (1 / size**2).astype(np.float32), solution, right, residual)


def _solve(values: np.ndarray, levels: list[_Level], tolerance: float, iterations: int) -> None:
    """Fill the unknowns of ``values`` in place."""
    fine = levels[0]
    length = values.shape[0]
    residual = np.zeros_like(values)
    zero = np.zeros_like(values)
    parallel.run(_residual, length, values, zero, fine.unknown, fine.weights, residual)
    first = float(parallel.total(_dot, length, residual, residual))
    direction = np.zeros_like(values)
    image = np.zeros_like(values)
    old = np.zeros_like(values)
    previous = 0.0
    for iteration in range(iterations):
        if float(parallel.total(_dot, length, residual, residual)) <= tolerance**2 * first:
            return
        fine.right[...] = residual
        _cycle(levels, 0)
        preconditioned = fine.solution
        slope = float(parallel.total(_dot, length, preconditioned, residual))
        beta = 0.0
        if iteration:
            beta = (slope - float(parallel.total(_dot, length, preconditioned, old))) / previous
        parallel.run(_combine, length, preconditioned, np.float32(max(beta, 0.0)), direction)
        parallel.run(_apply, length, direction, fine.unknown, fine.weights, image)
        curvature = float(parallel.total(_dot, length, direction, image))
        if not curvature > 0:
            return
        step = np.float32(float(parallel.total(_dot, length, direction, residual)) / curvature)
        old[...] = residual
        parallel.run(_advance, length, step, direction, image, values, residual)
        previous = slope


def _cycle(levels: list[_Level], depth: int) -> None:
    """One V-cycle for the right-hand side of ``levels[depth]``; the result is its ``solution``."""
    level = levels[depth]
    length = level.unknown.shape[0]
    level.solution[...] = 0
    last = depth + 1 == len(levels)
    _smooth(level, COARSEST_SWEEPS if last else SWEEPS, (0, 1))
    if last:
        return
    coarse = levels[depth + 1]
    parallel.run(_residual, length, level.solution, level.right, level.unknown, level.weights, level.residual)
    parallel.run(_restrict, coarse.unknown.shape[0], level.residual, *level.factors, coarse.unknown, coarse.right)
    _cycle(levels, depth + 1)
    parallel.run(_interpolate, length, coarse.solution, *level.factors, level.unknown, level.solution)
    _smooth(level, SWEEPS, (1, 0))


def _smooth(level: _Level, sweeps: int, colours: tuple[int, int]) -> None:
    for _ in range(sweeps):
        for colour in colours:
            parallel.run(
                _gauss_seidel, level.unknown.shape[0], colour, level.right, level.unknown, level.weights, level.solution
            )


@kernel
def _gauss_seidel(start, stop, colour, right, unknown, weights, u):
    wx, wy, wz = weights
    inverse = np.float32(0.5) / (wx + wy + wz)
    for i in range(max(start, 1), min(stop, u.shape[0] - 1)):
        for j in range(1, u.shape[1] - 1):
            for k in range(1 + (i + j + colour + 1) % 2, u.shape[2] - 1, 2):
                if unknown[i, j, k]:
                    u[i, j, k] = inverse * (
                        right[i, j, k]
                        + wx * (u[i - 1, j, k] + u[i + 1, j, k])
                        + wy * (u[i, j - 1, k] + u[i, j + 1, k])
                        + wz * (u[i, j, k - 1] + u[i, j, k + 1])
                    )


@kernel
def _residual(start, stop, u, right, unknown, weights, out):
    """``right`` minus the negative Laplacian of ``u`` at the unknowns, zero elsewhere."""
    wx, wy, wz = weights
    centre = np.float32(2) * (wx + wy + wz)
    for i in range(max(start, 1), min(stop, u.shape[0] - 1)):
        for j in range(1, u.shape[1] - 1):
            for k in range(1, u.shape[2] - 1):
                if unknown[i, j, k]:
                    out[i, j, k] = (
                        right[i, j, k]
                        - centre * u[i, j, k]
                        + wx * (u[i - 1, j, k] + u[i + 1, j, k])
                        + wy * (u[i, j - 1, k] + u[i, j + 1, k])
                        + wz * (u[i, j, k - 1] + u[i, j, k + 1])
                    )


@kernel
def _apply(start, stop, u, unknown, weights, out):
    """Negative Laplacian of ``u``, which is zero where nothing is unknown."""
    wx, wy, wz = weights
    centre = np.float32(2) * (wx + wy + wz)
    for i in range(max(start, 1), min(stop, u.shape[0] - 1)):
        for j in range(1, u.shape[1] - 1):
            for k in range(1, u.shape[2] - 1):
                if unknown[i, j, k]:
                    out[i, j, k] = (
                        centre * u[i, j, k]
                        - wx * (u[i - 1, j, k] + u[i + 1, j, k])
                        - wy * (u[i, j - 1, k] + u[i, j + 1, k])
                        - wz * (u[i, j, k - 1] + u[i, j, k + 1])
                    )


@kernel
def _restrict(start, stop, fine, fx, fy, fz, unknown, coarse):
    """Mean over the children of every coarse unknown."""
    scale = np.float32(1.0 / (fx * fy * fz))
    for i in range(start, stop):
        for j in range(unknown.shape[1]):
            for k in range(unknown.shape[2]):
                total = np.float32(0)
                if unknown[i, j, k]:
                    for a in range(fx):
                        for b in range(fy):
                            for c in range(fz):
                                total += fine[fx * i + a, fy * j + b, fz * k + c]
                coarse[i, j, k] = total * scale


@kernel
def _interpolate(start, stop, coarse, fx, fy, fz, unknown, fine):
    """Add the trilinear interpolation of ``coarse`` to the unknowns of ``fine``."""
    near, far = np.float32(0.75), np.float32(0.25)
    for i in range(start, stop):
        a = i // fx
        a2 = a if fx == 1 else min(max(a + 2 * (i % 2) - 1, 0), coarse.shape[0] - 1)
        for j in range(unknown.shape[1]):
            b = j // fy
            b2 = b if fy == 1 else min(max(b + 2 * (j % 2) - 1, 0), coarse.shape[1] - 1)
            for k in range(unknown.shape[2]):
                if unknown[i, j, k]:
                    c = k // fz
                    c2 = c if fz == 1 else min(max(c + 2 * (k % 2) - 1, 0), coarse.shape[2] - 1)
                    first = near * (near * coarse[a, b, c] + far * coarse[a, b, c2]) + far * (
                        near * coarse[a, b2, c] + far * coarse[a, b2, c2]
                    )
                    second = near * (near * coarse[a2, b, c] + far * coarse[a2, b, c2]) + far * (
                        near * coarse[a2, b2, c] + far * coarse[a2, b2, c2]
                    )
                    fine[i, j, k] += near * first + far * second


@kernel
def _dot(start, stop, left, right):
    total = 0.0
    for i in range(start, stop):
        for j in range(left.shape[1]):
            for k in range(left.shape[2]):
                total += left[i, j, k] * right[i, j, k]
    return total


@kernel
def _combine(start, stop, new, beta, direction):
    for i in range(start, stop):
        for j in range(new.shape[1]):
            for k in range(new.shape[2]):
                direction[i, j, k] = new[i, j, k] + beta * direction[i, j, k]


@kernel
def _advance(start, stop, step, direction, image, values, residual):
    for i in range(start, stop):
        for j in range(values.shape[1]):
            for k in range(values.shape[2]):
                values[i, j, k] += step * direction[i, j, k]
                residual[i, j, k] -= step * image[i, j, k]
