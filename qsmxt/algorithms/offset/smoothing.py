r"""Smooth maps of a wrapped phase without bias where it has a slope, a curvature or an edge.

A Gaussian average over a mask pulls a sloping map towards the inside in a rim of about two widths, because the
neighbours there lie on one side only. Instead a polynomial of second order is fitted around every node s of a coarse
grid, weighted by distance and by the reliability w of the phase,

.. math::
    c(s) = \arg\min_c \sum_r w(r)\, e^{-|r - s|^2 / 2 h^2}
           \Bigl[\varphi(r) - \sum_{|\alpha| \le 2} c_\alpha \Bigl(\frac{r - s}{h}\Bigr)^\alpha \Bigr]^2 ,

and the map is :math:`c_0(s)`, interpolated by cubics. It reproduces any polynomial of second order up to the rim of the
data. The sums are separable convolutions of moments on the coarse grid (spacing 0.4 h).

A wrapped phase is first averaged as a complex number in each block of the coarse grid, and the block phases are
unwrapped there. Blocks at the rim are not full, so that their means belong to their centroids; the slope of the fit
carries them to the nodes, and the fit is repeated. Finally everything is repeated on the wrapped differences between
the measured phase and the map, which removes what the fit leaves of third and fourth order.

References
----------
Knutsson and Westin 1993 on normalised convolution (doi:10.1109/CVPR.1993.341081); Fan and Gijbels 1996, Local
Polynomial Modelling and Its Applications, on design adaptation at edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.angles import cosine, sine
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.unwrapping.growing import align_regions, unwrap_regions
from qsmxt.algorithms.unwrapping.weights import Edges
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

#: Distance of the nodes in units of the width.
SPACING = 0.5

#: The weighting by distance ends at this multiple of the width.
REACH = 3.0

#: Planes of nodes whose moments are held at a time.
PLANES = 16

#: Nodes around the blocks that the cubic interpolation needs.
_RIM = 2

#: Added to the diagonal of the normal matrix for all but the constant, in units of the sum of weights.
_RIDGE = 1e-5

#: How often the means of the blocks are carried from their centroids to the nodes.
_CENTRING = 2

#: Exponents of the polynomial of second order.
_POWERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 2, 0), (0, 1, 1), (0, 0, 2))

#: Exponents of all moments up to fourth order, and where the normal matrix of two exponents finds its moment.
_ORDER = [(a, b, c) for a in range(5) for b in range(5 - a) for c in range(5 - a - b)]
_PLACE = np.array([[_ORDER.index(tuple(np.add(p, q).tolist())) for q in _POWERS] for p in _POWERS])


@dataclass(frozen=True)
class Nodes:
    """The coarse grid: ``block`` voxels per node and axis, ``shape`` nodes without the rim, ``width`` h in nodes."""

    block: tuple[int, int, int]
    shape: tuple[int, int, int]
    width: tuple[float, float, float]

    @classmethod
    def of(cls, grid: Grid, width: float) -> Nodes:
        """Nodes for a map of ``grid`` that is smoothed over ``width`` mm."""
        block = [max(1, min(n, round(SPACING * width / v))) for n, v in zip(grid.shape, grid.voxel_size, strict=True)]
        shape = [-(-n // b) for n, b in zip(grid.shape, block, strict=True)]
        in_nodes = [width / (v * b) for v, b in zip(grid.voxel_size, block, strict=True)]
        return cls(tuple(block), tuple(shape), tuple(in_nodes))  # type: ignore[arg-type]


def smooth_phase(
    phase: np.ndarray, weight: np.ndarray, grid: Grid, width: float, *, repetitions: int = 1
) -> np.ndarray:
    """Smooth map of a wrapped phase, without wraps.

    Parameters
    ----------
    phase
        Rad, float32 ``(x, y, z)``; multiples of 2 pi do not matter.
    weight
        Reliability (inverse variance in any unit), float32 ``(x, y, z)``, 0 where the phase does not count.
    grid
        Geometry of the volume.
    width
        Standard deviation h of the weighting by distance, mm.
    repetitions
        How often the fit is repeated on the differences.

    Returns
    -------
    numpy.ndarray
        Rad, float32 ``(x, y, z)``; extrapolated where the weight is 0, and 0 farther than the reach from any data.
        Its mean over the data lies in [-pi, pi].
    """
    nodes = Nodes.of(grid, width)
    blocks = _block_means(phase, weight, np.zeros((0, 0, 0), dtype=np.float32), nodes)
    strength = np.abs(blocks)
    if not strength.max(initial=0) > 0:
        raise InputError("phase offset: expected voxels with positive weight, found none; check mask and magnitude")
    angles = np.angle(blocks).astype(np.float32)
    usable = (strength > 0).astype(np.uint8)
    regions = unwrap_regions(angles, Edges(angles, usable, "romeo", strength.astype(np.float32)).costs())
    align_regions(angles, regions)
    centroids = _block_centroids(weight, nodes)
    estimator = _estimator(strength, nodes)
    total = _local_fit(angles, strength, centroids, estimator, nodes)
    out = _interpolate(total, nodes, grid.shape)
    for _ in range(repetitions):
        blocks = _block_means(phase, weight, out, nodes)
        total += _local_fit(np.angle(blocks), strength, centroids, estimator, nodes)
        out = _interpolate(total, nodes, grid.shape)
    return out


def _block_means(phase: np.ndarray, weight: np.ndarray, minus: np.ndarray, nodes: Nodes) -> np.ndarray:
    """Sum of ``weight exp(i (phase - minus))`` over every block, complex128; an empty ``minus`` is zero."""
    out = np.zeros(nodes.shape, dtype=np.complex128)
    parallel.run(_sum_blocks, nodes.shape[0], phase, weight, minus, *nodes.block, out)
    return out


@kernel
def _sum_blocks(start, stop, phase, weight, minus, bx, by, bz, out):
    nx, ny, nz = phase.shape
    subtract = minus.size > 0
    real, imaginary = np.empty(nz, dtype=np.float32), np.empty(nz, dtype=np.float32)
    for x in range(start * bx, min(nx, stop * bx)):
        for y in range(ny):
            angle, w, row = phase[x, y], weight[x, y], out[x // bx, y // by]
            if subtract:
                other = minus[x, y]
                for z in range(nz):
                    imaginary[z] = angle[z] - other[z]
            else:
                for z in range(nz):
                    imaginary[z] = angle[z]
            for z in range(nz):
                real[z] = w[z] * cosine(imaginary[z])
                imaginary[z] = w[z] * sine(imaginary[z])
            for block in range(row.size):
                a, b = 0.0, 0.0
                for z in range(block * bz, min(nz, block * bz + bz)):
                    a += real[z]
                    b += imaginary[z]
                row[block] += complex(a, b)


def _block_centroids(weight: np.ndarray, nodes: Nodes) -> np.ndarray:
    """Weighted centroid of every block relative to its node, in widths, float64 ``(3, blocks)``."""
    sums = np.zeros((4, *nodes.shape))
    parallel.run(_sum_positions, nodes.shape[0], weight, *nodes.block, sums)
    out = sums[1:] / np.where(sums[0] > 0, sums[0], 1)
    return out / (np.array(nodes.width) * np.array(nodes.block))[:, None, None, None]


@kernel
def _sum_positions(start, stop, weight, bx, by, bz, sums):
    nx, ny, nz = weight.shape
    for x in range(start * bx, min(nx, stop * bx)):
        for y in range(ny):
            w, i, j = weight[x, y], x // bx, y // by
            for k in range(sums.shape[3]):
                total, along = 0.0, 0.0
                for z in range(k * bz, min(nz, k * bz + bz)):
                    total += w[z]
                    along += w[z] * (z - k * bz - 0.5 * (bz - 1))
                sums[0, i, j, k] += total
                sums[1, i, j, k] += total * (x - i * bx - 0.5 * (bx - 1))
                sums[2, i, j, k] += total * (y - j * by - 0.5 * (by - 1))
                sums[3, i, j, k] += along


def _taps(nodes: Nodes, axis: int, power: int) -> np.ndarray:
    """Weighting by distance along one axis times the distance, in widths, to a power; float64, centred."""
    reach = int(np.ceil(REACH * nodes.width[axis]))
    distance = np.arange(-reach, reach + 1) / nodes.width[axis]
    return np.exp(-0.5 * distance**2) * distance**power


def _convolve(volume: np.ndarray, axis: int, taps: np.ndarray, planes: slice = slice(None)) -> np.ndarray:
    """Sum over offsets d of taps[d] volume[s + d], with zeros around the volume, on the volume widened by the rim.

    ``planes`` chooses from the result along ``axis``.
    """
    moved = np.ascontiguousarray(np.moveaxis(volume, axis, 0))
    flat = moved.reshape(moved.shape[0], -1)
    first, last, _ = planes.indices(moved.shape[0] + 2 * _RIM)
    out = np.empty((last - first, flat.shape[1]))
    parallel.run(_convolve_rows, out.shape[0], flat, taps, first, out)
    return np.ascontiguousarray(np.moveaxis(out.reshape(last - first, *moved.shape[1:]), 0, axis))


@kernel
def _convolve_rows(start, stop, source, taps, first, out):
    half = taps.size // 2
    for x in range(start, stop):
        row = out[x]
        row[:] = 0.0
        centre = first + x - _RIM
        for k in range(max(-half, -centre), min(half, source.shape[0] - 1 - centre) + 1):
            tap = taps[k + half]
            other = source[centre + k]
            for i in range(row.size):
                row[i] += tap * other[i]


def _moments(
    volume: np.ndarray, nodes: Nodes, order: int, planes: slice
) -> Iterator[tuple[tuple[int, int, int], np.ndarray]]:
    """All moments of ``volume`` around the nodes of ``planes`` up to ``order``, one after the other, in that order."""
    for a in range(order + 1):
        along_x = _convolve(volume, 0, _taps(nodes, 0, a), planes)
        for b in range(order + 1 - a):
            along_y = _convolve(along_x, 1, _taps(nodes, 1, b))
            for c in range(order + 1 - a - b):
                yield (a, b, c), _convolve(along_y, 2, _taps(nodes, 2, c)).reshape(-1)


def _pieces(nodes: Nodes) -> list[tuple[slice, slice]]:
    """Planes of nodes, rim included, that are treated at a time, and where their nodes are among all."""
    nx, ny, nz = (n + 2 * _RIM for n in nodes.shape)
    return [(slice(a, b), slice(a * ny * nz, b * ny * nz)) for a, b in parallel.slabs(nx, -(-nx // PLANES))]


def _estimator(strength: np.ndarray, nodes: Nodes) -> np.ndarray:
    """First four rows of the inverse normal matrix of the nodes, ``(4, 10, node)``; 0 where there is hardly any weight.

    They give the value and the slope of the local polynomial at the node.
    """
    pieces = _pieces(nodes)
    least = 1e-9 * max(next(_moments(strength, nodes, 0, planes))[1].max() for planes, _ in pieces)
    out = np.zeros((4, len(_POWERS), pieces[-1][1].stop))
    for planes, inside in pieces:
        normal = np.empty((len(_ORDER), inside.stop - inside.start))
        for row, (_, moment) in zip(normal, _moments(strength, nodes, 4, planes), strict=True):
            row[:] = moment
        parallel.run(_invert_nodes, normal.shape[1], normal, _PLACE, least, out[..., inside])
    return out


def _local_fit(
    angles: np.ndarray, strength: np.ndarray, centroids: np.ndarray, estimator: np.ndarray, nodes: Nodes
) -> np.ndarray:
    """Value of the local polynomial at every node, rim included, from the mean angles in the blocks."""
    shape = [n + 2 * _RIM for n in nodes.shape]
    inner = (slice(None), *(slice(_RIM, -_RIM),) * 3)
    at_nodes = angles
    for _ in range(_CENTRING):
        slopes = _solution(strength * at_nodes, estimator[1:], nodes).reshape(3, *shape)[inner]
        at_nodes = angles - (slopes * centroids).sum(axis=0)
    return _solution(strength * at_nodes, estimator[:1], nodes).reshape(shape)


def _solution(values: np.ndarray, estimator: np.ndarray, nodes: Nodes) -> np.ndarray:
    """Coefficients of the local polynomials from weighted values in the blocks, ``(coefficient, node)``."""
    out = np.zeros((len(estimator), estimator.shape[2]))
    for planes, inside in _pieces(nodes):
        found = dict(_moments(values, nodes, 2, planes))
        for place, power in enumerate(_POWERS):
            for row, factors in zip(out, estimator[:, place], strict=True):
                row[inside] += factors[inside] * found[power]
    return out


@kernel(fastmath=False)
def _invert_nodes(start, stop, normal, place, least, out):
    """Solve each system for the first unit vectors by Cholesky decomposition, with a ridge."""
    size = place.shape[0]
    lower = np.empty((size, size))
    solution = np.empty(size)
    for n in range(start, stop):
        total = normal[0, n]
        if total <= least:
            continue
        for i in range(size):
            for j in range(i + 1):
                value = normal[place[i, j], n]
                if i == j and i > 0:
                    value += _RIDGE * total
                for k in range(j):
                    value -= lower[i, k] * lower[j, k]
                lower[i, j] = np.sqrt(max(value, 1e-12 * total)) if i == j else value / lower[j, j]
        for unit in range(out.shape[0]):
            for i in range(size):
                value = 1.0 if i == unit else 0.0
                for k in range(i):
                    value -= lower[i, k] * solution[k]
                solution[i] = value / lower[i, i]
            for i in range(size - 1, -1, -1):
                value = solution[i]
                for k in range(i + 1, size):
                    value -= lower[k, i] * solution[k]
                solution[i] = value / lower[i, i]
                out[unit, i, n] = solution[i]


def _cubic(length: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """First of four nodes (rim included) and their Lagrange weights for every voxel of an axis."""
    position = (np.arange(length) - (block - 1) / 2) / block + _RIM
    first = np.floor(position).astype(np.int64)
    t = position - first
    weights = np.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        ],
        axis=1,
    )
    return first - 1, weights.astype(np.float32)


def _interpolate(values: np.ndarray, nodes: Nodes, shape: tuple[int, int, int]) -> np.ndarray:
    """Values at the nodes, rim included, interpolated to the voxels; float32."""
    out = np.empty(shape, dtype=np.float32)
    axes = [part for n, b in zip(shape, nodes.block, strict=True) for part in _cubic(n, b)]
    parallel.run(_interpolate_planes, shape[0], values.astype(np.float32), *axes, out)
    return out


@kernel
def _interpolate_planes(start, stop, values, first_x, weight_x, first_y, weight_y, first_z, weight_z, out):
    ny, nz = out.shape[1:]
    plane = np.empty(values.shape[1:], dtype=np.float32)
    row = np.empty(values.shape[2], dtype=np.float32)
    for x in range(start, stop):
        plane[:] = 0
        for k in range(4):
            for y in range(plane.shape[0]):
                for z in range(plane.shape[1]):
                    plane[y, z] += weight_x[x, k] * values[first_x[x] + k, y, z]
        for y in range(ny):
            row[:] = 0
            for k in range(4):
                for z in range(row.size):
                    row[z] += weight_y[y, k] * plane[first_y[y] + k, z]
            for z in range(nz):
                i = first_z[z]
                out[x, y, z] = (
                    weight_z[z, 0] * row[i]
                    + weight_z[z, 1] * row[i + 1]
                    + weight_z[z, 2] * row[i + 2]
                    + weight_z[z, 3] * row[i + 3]
                )
