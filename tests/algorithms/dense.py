"""Problems so small that their operators are matrices, and an unhurried solver: the oracles of fast methods.

Everything is float64 and written down from the published equation, none of it by the code that is tested: operators are
made column by column, minima are found by majorisation, every step of which is a dense system of linear equations.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
import scipy.sparse

from qsmxt.algorithms.cropping import Crop
from qsmxt.geometry import Grid


def convolution(spectrum: np.ndarray) -> np.ndarray:
    """Matrix of the convolution whose full spectrum is given, real."""
    shape = spectrum.shape
    size = int(np.prod(shape))
    columns = np.fft.fftn(np.eye(size).reshape(size, *shape), axes=(1, 2, 3))
    return np.fft.ifftn(columns * spectrum, axes=(1, 2, 3)).real.reshape(size, size).T


def frequencies(grid: Grid) -> list[np.ndarray]:
    """Spatial frequencies of the full spectrum, 1/mm."""
    axes = [np.fft.fftfreq(n, v) for n, v in zip(grid.shape, grid.voxel_size, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def dipole_spectrum(grid: Grid) -> np.ndarray:
    """1/3 - (k b)^2 / k^2, full spectrum; the mean over both signs of frequencies at half the sampling rate."""
    k = frequencies(grid)
    square = sum(a * a for a in k)
    square[0, 0, 0] = 1
    half = [np.abs(2 * a * v) > 1 - 1e-9 for a, v in zip(k, grid.voxel_size, strict=True)]
    spectrum = np.zeros(grid.shape)
    for signs in itertools.product((1, -1), repeat=3):
        along = sum(np.where(h, s * a, a) * b for h, s, a, b in zip(half, signs, k, grid.b0_direction, strict=True))
        spectrum += (1 / 3 - along**2 / square) / 8
    spectrum[0, 0, 0] = 0
    return np.where(np.abs(spectrum) < 1e-7, 0, spectrum)


def dipole(grid: Grid) -> np.ndarray:
    """Matrix of the convolution with :func:`dipole_spectrum`."""
    return convolution(dipole_spectrum(grid))


def of_half(half: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Matrix of the convolution with a real half spectrum."""
    size = int(np.prod(shape))
    columns = np.fft.rfftn(np.eye(size).reshape(size, *shape), axes=(1, 2, 3)) * half
    return np.fft.irfftn(columns, s=shape, axes=(1, 2, 3)).reshape(size, size).T


def difference(grid: Grid, axis: int) -> np.ndarray:
    """Matrix of the periodic forward difference per mm along an axis."""
    size = int(np.prod(grid.shape))
    index = np.arange(size).reshape(grid.shape)
    out = -np.eye(size)
    out[index.ravel(), np.roll(index, -1, axis).ravel()] += 1
    return out / grid.voxel_size[axis]


def gradient(grid: Grid) -> np.ndarray:
    """Matrix of the three differences, one below the other."""
    return np.concatenate([difference(grid, axis) for axis in range(3)])


def symmetric_gradient(grid: Grid) -> np.ndarray:
    """Matrix from a vector field to xx, yy, zz, xy, xz, yz of its symmetric gradient."""
    d = [difference(grid, axis) for axis in range(3)]
    zero = np.zeros_like(d[0])
    rows = [[d[0], zero, zero], [zero, d[1], zero], [zero, zero, d[2]]]
    rows += [[d[1] / 2, d[0] / 2, zero], [d[2] / 2, zero, d[0] / 2], [zero, d[2] / 2, d[1] / 2]]
    return np.block(rows)


def spherical_mean(grid: Grid, radius: float) -> np.ndarray:
    """Matrix of the mean over the voxels within ``radius`` (mm), periodic."""
    axes = [np.fft.fftfreq(n, 1 / n) * v for n, v in zip(grid.shape, grid.voxel_size, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    ball = (x * x + y * y + z * z <= radius * radius * (1 + 1e-6)).astype(float)
    return convolution(np.fft.fftn(ball / ball.sum()))


@dataclass
class Box:
    """The padded box on which a problem lives, as vectors."""

    grid: Grid
    mask: np.ndarray
    extract: Callable[[np.ndarray], np.ndarray] = field(repr=False)
    restore: Callable[[np.ndarray], np.ndarray] = field(repr=False)

    @classmethod
    def around(cls, mask: np.ndarray, grid: Grid, padding: float) -> Box:
        crop = Crop.around(mask, grid, padding=padding)

        def extract(volume: np.ndarray) -> np.ndarray:
            return crop.extract(np.where(mask, volume, 0).astype(np.float64)).ravel()

        def restore(vector: np.ndarray) -> np.ndarray:
            return crop.restore(vector.reshape(crop.grid.shape)) * mask

        return cls(crop.grid, crop.extract(mask).ravel(), extract, restore)


#: First and second derivative rules: from residual and data to the curvature and aim of a parabola above the cost.
def _squared(r, f, eps):
    return np.ones_like(r), f


def _absolute(r, f, eps):
    return 1 / np.sqrt((r - f) ** 2 + eps**2), f


def _phase(r, f, eps):
    """1 - cos(r - f) curves by at most 1."""
    return np.ones_like(r), r - np.sin(r - f)


def _absolute_phase(r, f, eps):
    """2 |sin((r - f) / 2)| is the root of 2 (1 - cos(r - f))."""
    return 1 / np.sqrt(4 * np.sin((r - f) / 2) ** 2 + eps**2), r - np.sin(r - f)


KINDS = {"squared": _squared, "absolute": _absolute, "phase": _phase, "absolute phase": _absolute_phase}


@dataclass
class Term:
    """``sum(weights * cost(matrix @ x - data))``."""

    kind: str
    matrix: np.ndarray
    weights: np.ndarray
    data: np.ndarray | float = 0.0


def minimum(terms: list[Term], smoothing: list[float], steps: int = 40, ridge: float = 1e-9) -> np.ndarray:
    """Minimiser of a sum of terms; absolute values are smoothed less and less, the last time by ``smoothing[-1]``."""
    size = terms[0].matrix.shape[1]
    x = np.zeros(size)
    matrices = [scipy.sparse.csr_matrix(t.matrix) if np.mean(t.matrix != 0) < 0.1 else t.matrix for t in terms]
    for eps in smoothing:
        for _ in range(steps):
            normal, right = ridge * np.eye(size), np.zeros(size)
            for term, matrix in zip(terms, matrices, strict=True):
                curvature, aim = KINDS[term.kind](matrix @ x, np.asarray(term.data), eps)
                curvature = term.weights * curvature
                if scipy.sparse.issparse(matrix):
                    normal += (matrix.T @ matrix.multiply(curvature[:, None])).toarray()
                else:
                    normal += matrix.T @ (curvature[:, None] * matrix)
                right += matrix.T @ (curvature * aim)
            new = scipy.linalg.solve(normal, right, assume_a="pos", check_finite=False)
            moved, x = np.linalg.norm(new - x), new
            if moved <= 1e-6 * np.linalg.norm(new):
                break
    return x


COSTS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "squared": lambda r, eps: r**2 / 2,
    "absolute": lambda r, eps: np.sqrt(r**2 + eps**2),
    "phase": lambda r, eps: 1 - np.cos(r),
    "absolute phase": lambda r, eps: np.sqrt(4 * np.sin(r / 2) ** 2 + eps**2),
}


def cost(terms: list[Term], x: np.ndarray, eps: float = 0.0) -> float:
    """Sum of the terms, absolute values smoothed by ``eps``."""
    return float(sum((t.weights * COSTS[t.kind](t.matrix @ x - t.data, eps)).sum() for t in terms))


def least_cost(terms: list[Term], known: np.ndarray, values: np.ndarray, smoothing: list[float]) -> float:
    """The least sum of the terms if the unknowns in ``known`` have ``values``."""
    rest = [Term(t.kind, t.matrix[:, ~known], t.weights, t.data - t.matrix[:, known] @ values) for t in terms]
    return cost(rest, minimum(rest, smoothing), smoothing[-1])


def continuation(values: np.ndarray, mask: np.ndarray, voxel_size: tuple[float, float, float]) -> np.ndarray:
    """Harmonic function with the values of the rim of ``mask``, by one dense system of the seven-point Laplacian."""
    inside = interior(mask)
    number = np.full(mask.shape, -1)
    number[inside] = np.arange(inside.sum())
    matrix, right = np.zeros((inside.sum(),) * 2), np.zeros(inside.sum())
    for here in np.argwhere(inside):
        row = number[tuple(here)]
        for axis, v in enumerate(voxel_size):
            for sign in (1, -1):
                there = here.copy()
                there[axis] += sign
                matrix[row, row] += 1 / v**2
                if inside[tuple(there)]:
                    matrix[row, number[tuple(there)]] -= 1 / v**2
                else:
                    right[row] += values[tuple(there)] / v**2
    out = np.where(mask, values, 0).astype(float)
    out[inside] = np.linalg.solve(matrix, right)
    return out


def interior(mask: np.ndarray) -> np.ndarray:
    """Voxels whose six neighbours are in the mask."""
    padded = np.pad(mask, 1)
    out = padded.copy()
    for axis in range(3):
        for sign in (1, -1):
            out &= np.roll(padded, sign, axis)
    return out[1:-1, 1:-1, 1:-1]
