"""Block means of a volume and their interpolation back: slow spatial work is done on few voxels."""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.geometry import Grid


def blocks(grid: Grid, size: float) -> tuple[int, int, int]:
    """Voxels per block along every axis such that a block is at most ``size`` mm long (at least one voxel)."""
    counts = [max(1, int(size / v + 1e-6)) for v in grid.voxel_size]
    return counts[0], counts[1], counts[2]


def coarse_grid(grid: Grid, factors: tuple[int, int, int]) -> Grid:
    """Grid of the blocks; the last block of an axis may be incomplete."""
    shape = tuple(-(-n // f) for n, f in zip(grid.shape, factors, strict=True))
    size = tuple(v * f for v, f in zip(grid.voxel_size, factors, strict=True))
    return Grid(shape, size, grid.b0_direction)  # type: ignore[arg-type]


def block_means(volume: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Mean over every block, float32; an incomplete block counts the voxels it has."""
    shape = tuple(-(-n // f) for n, f in zip(volume.shape, factors, strict=True))
    out = np.zeros(shape, dtype=np.float32)
    parallel.run(_block_means, shape[0], volume, *factors, out)
    return out


@kernel
def _block_means(start, stop, volume, fx, fy, fz, out):
    nx, ny, nz = volume.shape
    for i in range(start, stop):
        last = min(nx, (i + 1) * fx)
        for j in range(out.shape[1]):
            end = min(ny, (j + 1) * fy)
            for x in range(i * fx, last):
                for y in range(j * fy, end):
                    row = volume[x, y]
                    for k in range(out.shape[2]):
                        for z in range(k * fz, min(nz, (k + 1) * fz)):
                            out[i, j, k] += row[z]
            rows = (last - i * fx) * (end - j * fy)
            for k in range(out.shape[2]):
                out[i, j, k] /= rows * (min(nz, (k + 1) * fz) - k * fz)


def interpolate(coarse: np.ndarray, factors: tuple[int, int, int], shape: tuple[int, int, int]) -> np.ndarray:
    """Trilinear interpolation of block values at the voxel centres of ``shape``, float32, constant beyond the ends."""
    out = np.empty(shape, dtype=np.float32)
    places = [_places(n, f, c) for n, f, c in zip(shape, factors, coarse.shape, strict=True)]
    parallel.run(_interpolate, shape[0], coarse, *(a for place in places for a in place), out)
    return out


def _places(length: int, factor: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower neighbour and fraction of every voxel centre among the block centres."""
    position = np.clip((np.arange(length) + 0.5) / factor - 0.5, 0, count - 1)
    lower = np.minimum(position.astype(np.int64), max(0, count - 2))
    return lower, (position - lower).astype(np.float32)


@kernel
def _interpolate(start, stop, coarse, xs, fx, ys, fy, zs, fz, out):
    last_x, last_y, last_z = coarse.shape[0] - 1, coarse.shape[1] - 1, coarse.shape[2] - 1
    row = np.empty(coarse.shape[2], dtype=np.float32)
    for x in range(start, stop):
        i, i1 = xs[x], min(xs[x] + 1, last_x)
        for y in range(out.shape[1]):
            j, j1 = ys[y], min(ys[y] + 1, last_y)
            a, b = fx[x], fy[y]
            for k in range(row.size):
                low = coarse[i, j, k] + b * (coarse[i, j1, k] - coarse[i, j, k])
                high = coarse[i1, j, k] + b * (coarse[i1, j1, k] - coarse[i1, j, k])
                row[k] = low + a * (high - low)
            for z in range(out.shape[2]):
                k = zs[z]
                out[x, y, z] = row[k] + fz[z] * (row[min(k + 1, last_z)] - row[k])
