r"""Means over spheres that lie in the mask, by running sums along rows.

With :math:`P(x, y, z) = \sum_{z' < z} f(x, y, z')` the sum over a sphere about a voxel is one difference of P for every
row that the sphere cuts,

.. math:: \sum_{|s - r| \le \rho} f(s) = \sum_{(i, j)} P(x+i, y+j, z+h_{ij}+1) - P(x+i, y+j, z-h_{ij}) ,

with :math:`h_{ij}` half the length of the row in voxels. That takes one row for :math:`\pi\rho^2/(v_x v_y)` of the
:math:`4\pi\rho^3/3V` voxels, needs no padding, is exact at the border, and lets every voxel have a radius of its own.

A sphere holds the voxels whose centres lie within its radius. Those about the voxels kept by
:func:`qsmxt.algorithms.morphology.erode` hold voxels of the mask only.

If the voxels are not cubes, the second moments :math:`m_i` of such a sphere differ between the axes, and the mean of a
harmonic function is not its value at the centre: 1 x 1 x 3 mm voxels and a radius of 6 mm leave several percent of a
quadratic background, far more than a local field. Three second differences with a step of about three quarters of the
radius,

.. math::

    S f(r) \leftarrow S f(r) - \sum_i \frac{m_i - \bar m}{2 h_i^2}\, \big[f(r + h_i) - 2 f(r) + f(r - h_i)\big] ,

make the moments equal and so the mean exact for harmonic polynomials up to the third degree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier, kernels, morphology, parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.errors import ParameterError
from qsmxt.geometry import Grid

#: Step of the second differences that make the moments equal, in units of the radius.
STEP = 0.75


@dataclass(frozen=True)
class Spheres:
    """Spheres of one or more radii on a grid.

    Attributes
    ----------
    grid
        The sampling.
    radii
        Radii, mm.
    upper, lower
        For every row of every sphere, where its end and its start lie in the flat running sums relative to the
        centre's own entry.
    first
        Where the rows of each sphere begin in ``upper`` and ``lower``; one more entry than radii.
    scale
        One over the number of voxels of each sphere.
    steps
        Steps of the second differences along the axes, voxels, (radii, 3).
    correction
        Their coefficients, (radii, 3); zero for cubic voxels.
    """

    grid: Grid
    radii: tuple[float, ...]
    upper: np.ndarray
    lower: np.ndarray
    first: np.ndarray
    scale: np.ndarray
    steps: np.ndarray
    correction: np.ndarray

    @classmethod
    def on(cls, grid: Grid, *radii: float) -> Spheres:
        """Spheres of ``radii`` (mm); :class:`ParameterError` if one is smaller than the largest voxel side."""
        upper: list[int] = []
        lower: list[int] = []
        first, scale, steps, correction = [0], [], [], []
        stride_y = grid.shape[2] + 1
        stride_x = grid.shape[1] * stride_y
        for radius in radii:
            if radius * (1 + morphology.TOUCH) < max(grid.voxel_size):
                least = max(grid.voxel_size)
                raise ParameterError(
                    f"radius: expected at least the largest voxel side ({least:g} mm), found {radius:g} mm"
                )
            rows = _rows(grid.voxel_size, radius)
            upper.extend(i * stride_x + j * stride_y + half + 1 for i, j, half in rows)
            lower.extend(i * stride_x + j * stride_y - half for i, j, half in rows)
            first.append(len(upper))
            scale.append(1.0 / sum(2 * half + 1 for _, _, half in rows))
            step = [max(1, int(STEP * radius / v)) for v in grid.voxel_size]
            steps.append(step)
            correction.append(_correction(rows, grid.voxel_size, step))
        return cls(
            grid=grid,
            radii=tuple(radii),
            upper=np.array(upper, dtype=np.int64),
            lower=np.array(lower, dtype=np.int64),
            first=np.array(first, dtype=np.int64),
            scale=np.array(scale, dtype=np.float32),
            steps=np.array(steps, dtype=np.int64),
            correction=np.array(correction, dtype=np.float32),
        )

    def transfer(self, index: int = 0) -> np.ndarray:
        """Half spectrum of the mean over the sphere ``index``, float32, 1 at the origin."""
        x, y, z = kernels.offsets(self.grid)
        square = (self.radii[index] * (1 + morphology.TOUCH)) ** 2
        weights = (x * x + y * y + z * z <= np.float32(square)).astype(np.float32) * self.scale[index]
        for axis, (step, factor) in enumerate(zip(self.steps[index], self.correction[index], strict=True)):
            for offset, times in ((step, 1), (-step, 1), (0, -2)):
                at = [0, 0, 0]
                at[axis] = offset
                weights[tuple(at)] += times * factor
        return np.ascontiguousarray(fourier.forward(weights).real)

    def means(self, field: np.ndarray, which: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Mean of ``field`` over the sphere ``which - 1`` about every voxel, 0 where ``which`` is 0.

        Parameters
        ----------
        field
            Float32 volume.
        which
            uint8 (or bool, for a single radius) volume. The spheres must lie in the volume.
        out
            Where to write, float32; not ``field``.
        """
        sums = np.empty((*field.shape[:2], field.shape[2] + 1), dtype=np.float32)
        parallel.run(_running_sums, field.shape[0], field, sums)
        if out is None:
            out = np.empty(field.shape, dtype=np.float32)
        which = which.view(np.uint8)
        parallel.run(
            _means, field.shape[0], sums.reshape(-1), which, self.upper, self.lower, self.first, self.scale, out
        )
        if self.correction.any():
            parallel.run(_correct, field.shape[0], field, which, self.steps, self.correction, out)
        return out

    def departures(self, engine: Engine, which: np.ndarray) -> Callable[[Any], Any]:
        """Function of a field: the field less its :meth:`means` about the voxels of ``which``, zero elsewhere.

        The field is where ``engine`` computes, and so is the result.
        """
        averages, inside = self._averages(engine, which), engine.send(which > 0)

        def depart(field: Any) -> Any:
            mean = averages(field)
            engine.run(_less, _less_form, field.shape[0], field, inside, mean)
            return mean

        return depart

    def _averages(self, engine: Engine, which: np.ndarray) -> Callable[[Any], Any]:
        """:meth:`means` about the voxels of ``which`` as a function of a field that is where ``engine`` computes.

        Elsewhere than on the host a mean is a product of transforms: the same numbers, one transform for each radius.
        """
        if engine is HOST:
            return lambda field: self.means(field, which)
        used = [n for n in range(len(self.radii)) if (which == n + 1).any()]
        spheres = [(engine.send(self.transfer(n)), engine.send((which == n + 1).astype(np.float32))) for n in used]

        def average(field: Any) -> Any:
            spectrum = engine.forward(field)
            return sum(here * engine.inverse(spectrum * transfer, field.shape) for transfer, here in spheres)

        return average


def _less_form(xp: Any, volume: Any, kept: Any, mean: Any) -> None:
    mean[...] = xp.where(kept, volume - mean, xp.zeros_like(mean))


@kernel
def _less(start, stop, volume, kept, mean):
    """mean = volume - mean where kept."""
    for x in range(start, stop):
        for y in range(volume.shape[1]):
            row, out, inside = volume[x, y], mean[x, y], kept[x, y]
            for z in range(row.size):
                out[z] = row[z] - out[z] if inside[z] else np.float32(0.0)


def _rows(voxel_size: tuple[float, float, float], radius: float) -> list[tuple[int, int, int]]:
    """Offsets of the rows that a sphere cuts along the first two axes, and half their length, in voxels."""
    vx, vy, vz = voxel_size
    square = (radius * (1 + morphology.TOUCH)) ** 2
    reach_x, reach_y = int(np.sqrt(square) / vx), int(np.sqrt(square) / vy)
    rows = []
    for i in range(-reach_x, reach_x + 1):
        for j in range(-reach_y, reach_y + 1):
            rest = square - (i * vx) ** 2 - (j * vy) ** 2
            if rest >= 0:
                rows.append((i, j, int(np.sqrt(rest) / vz)))
    return rows


def _correction(rows: list[tuple[int, int, int]], voxel_size: tuple[float, ...], step: list[int]) -> list[float]:
    """Coefficients of the second differences that make the second moments of a sphere equal."""
    vx, vy, vz = voxel_size
    moments = np.zeros(3)
    voxels = 0
    for i, j, half in rows:
        count = 2 * half + 1
        voxels += count
        moments += (count * (i * vx) ** 2, count * (j * vy) ** 2, vz**2 * half * (half + 1) * count / 3)
    moments /= voxels
    excess = moments - moments.mean()
    excess[np.abs(excess) < 1e-9 * moments.mean()] = 0
    return [float(-e / (2 * (n * v) ** 2)) for e, n, v in zip(excess, step, voxel_size, strict=True)]


@kernel
def _running_sums(start, stop, field, sums):
    for x in range(start, stop):
        for y in range(field.shape[1]):
            total = 0.0
            sums[x, y, 0] = 0.0
            for z in range(field.shape[2]):
                total += field[x, y, z]
                sums[x, y, z + 1] = total


@kernel
def _means(start, stop, sums, which, upper, lower, first, scale, out):
    ny, nz = which.shape[1], which.shape[2]
    for x in range(start, stop):
        for y in range(ny):
            base = (x * ny + y) * (nz + 1)
            line = out[x, y]
            z = 0
            while z < nz:
                sphere = which[x, y, z]
                if sphere == 0:
                    line[z] = 0.0
                    z += 1
                    continue
                end = z + 1
                while end < nz and which[x, y, end] == sphere:
                    end += 1
                begin_row, end_row = first[sphere - 1], first[sphere]
                length = end - z
                if length < 8:
                    for i in range(z, end):
                        total = np.float32(0.0)
                        for row in range(begin_row, end_row):
                            total += sums[base + i + upper[row]] - sums[base + i + lower[row]]
                        line[i] = total * scale[sphere - 1]
                else:
                    part = line[z:end]
                    part[:] = 0.0
                    for row in range(begin_row, end_row):
                        high = base + z + upper[row]
                        low = base + z + lower[row]
                        ends = sums[high : high + length]
                        starts = sums[low : low + length]
                        for i in range(length):
                            part[i] += ends[i] - starts[i]
                    for i in range(length):
                        part[i] *= scale[sphere - 1]
                z = end


@kernel
def _correct(start, stop, field, which, steps, correction, out):
    ny, nz = which.shape[1], which.shape[2]
    for x in range(start, stop):
        for y in range(ny):
            for z in range(nz):
                if which[x, y, z]:
                    sphere = which[x, y, z] - 1
                    centre = np.float32(2.0) * field[x, y, z]
                    i, j, k = steps[sphere, 0], steps[sphere, 1], steps[sphere, 2]
                    out[x, y, z] += (
                        correction[sphere, 0] * (field[x + i, y, z] + field[x - i, y, z] - centre)
                        + correction[sphere, 1] * (field[x, y + j, z] + field[x, y - j, z] - centre)
                        + correction[sphere, 2] * (field[x, y, z + k] + field[x, y, z - k] - centre)
                    )
