r"""Morphology of masks in millimetres: distance transform, erosion, dilation, largest component, holes.

The distance of a voxel inside a mask is the Euclidean distance between its centre and the centre of the nearest voxel
outside,

.. math:: d(r) = \min_{s \notin M} \lVert V (r - s) \rVert , \qquad V = \operatorname{diag}(v_x, v_y, v_z),

and the voxels beyond the edge of the volume count as outside (there are no data). One capped transform replaces any
number of erosions: a sphere of radius :math:`\rho` about a voxel lies in the mask if and only if :math:`d > \rho`.

The transform is separable: along the last axis the distance to the nearest outside voxel of the row, then for the two
other axes the minimum of :math:`d^2 + (k v)^2` over the neighbours at offset k. Nothing beyond the cap is looked at, so
the cost is proportional to the cap and not to the size of the volume.

All lengths are in mm, all masks bool ``(x, y, z)``.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.cropping import box_of
from qsmxt.algorithms.rows import span
from qsmxt.algorithms.runs import Runs
from qsmxt.geometry import Grid

#: A sphere whose radius equals a distance to this relative accuracy still reaches the voxel at that distance.
TOUCH = 1e-5


@kernel
def _along_rows(start: int, stop: int, mask: np.ndarray, out: np.ndarray, step: float, cap: float) -> None:
    ny, nz = mask.shape[1], mask.shape[2]
    limit = np.float32(cap * cap)
    for x in range(start, stop):
        for y in range(ny):
            run = 0
            for z in range(nz):
                run = run + 1 if mask[x, y, z] else 0
                distance = np.float32(run * step)
                out[x, y, z] = min(distance * distance, limit)
            run = 0
            for z in range(nz - 1, -1, -1):
                run = run + 1 if mask[x, y, z] else 0
                distance = np.float32(run * step)
                out[x, y, z] = min(out[x, y, z], distance * distance)


@kernel
def _along_second(start: int, stop: int, source: np.ndarray, out: np.ndarray, step: float, cap: float) -> None:
    ny, nz = source.shape[1], source.shape[2]
    reach = int(cap / step)
    for x in range(start, stop):
        for y in range(ny):
            row, here = out[x, y], source[x, y]
            for z in range(nz):
                row[z] = here[z]
            low, high = span(here)
            for k in range(1, reach + 1):
                add = np.float32((k * step) ** 2)
                if y >= k and y + k < ny:
                    one, two = source[x, y - k], source[x, y + k]
                    for z in range(low, high):
                        row[z] = min(row[z], min(one[z], two[z]) + add)
                else:
                    for z in range(low, high):
                        row[z] = min(row[z], add)


@kernel
def _along_first(start: int, stop: int, source: np.ndarray, out: np.ndarray, step: float, cap: float) -> None:
    nx, ny, nz = source.shape
    reach = int(cap / step)
    for x in range(start, stop):
        for y in range(ny):
            row, here = out[x, y], source[x, y]
            for z in range(nz):
                row[z] = here[z]
            low, high = span(here)
            for k in range(1, reach + 1):
                add = np.float32((k * step) ** 2)
                if x >= k and x + k < nx:
                    one, two = source[x - k, y], source[x + k, y]
                    for z in range(low, high):
                        row[z] = min(row[z], min(one[z], two[z]) + add)
                else:
                    for z in range(low, high):
                        row[z] = min(row[z], add)
            for z in range(low, high):
                row[z] = np.sqrt(row[z])


def distance(mask: np.ndarray, grid: Grid, cap: float, *, border: bool = False) -> np.ndarray:
    """Distance of every voxel of ``mask`` to the nearest voxel outside, float32, mm; 0 outside.

    Parameters
    ----------
    mask
        Bool volume.
    grid
        Shape and voxel size.
    cap
        Distances beyond this are returned as ``cap``, mm.
    border
        Whether what lies beyond the edge of the volume belongs to the mask. If not, the edge is an outside.

    Examples
    --------
    >>> import numpy as np
    >>> from qsmxt.geometry import Grid
    >>> mask = np.zeros((1, 1, 7), bool)
    >>> mask[..., 1:6] = True
    >>> distance(mask, Grid(mask.shape, (9.0, 9.0, 2.0)), 5.0)[0, 0]
    array([0., 2., 4., 5., 4., 2., 0.], dtype=float32)
    """
    grid.check("mask", mask)
    mask = np.ascontiguousarray(mask, dtype=bool)
    if border:
        widths = [int(np.ceil(cap / v)) for v in grid.voxel_size]
        padded = np.pad(mask, [(w, w) for w in widths], mode="constant", constant_values=True)
        inner = tuple(slice(w, w + n) for w, n in zip(widths, mask.shape, strict=True))
        return np.ascontiguousarray(distance(padded, grid.with_shape(padded.shape), cap)[inner])  # type: ignore[arg-type]
    first = np.empty(mask.shape, dtype=np.float32)
    second = np.empty(mask.shape, dtype=np.float32)
    vx, vy, vz = grid.voxel_size
    length = mask.shape[0]
    parallel.run(_along_rows, length, mask, first, vz, cap)
    parallel.run(_along_second, length, first, second, vy, cap)
    parallel.run(_along_first, length, second, first, vx, cap)
    return first


def depth(mask: np.ndarray, grid: Grid, cap: float) -> np.ndarray:
    """:func:`distance` with outsides beyond the edges of the volume, except along axes of a single voxel.

    A single slice tells nothing of what is above and below it, so depth counts within it.
    """
    thin = [axis for axis, n in enumerate(mask.shape) if n == 1]
    if not thin:
        return distance(mask, grid, cap)
    whole, middle = mask, [slice(None)] * 3
    for axis in thin:
        width = int(np.ceil(cap / grid.voxel_size[axis]))
        whole = np.repeat(whole, 2 * width + 1, axis=axis)
        middle[axis] = slice(width, width + 1)
    return np.ascontiguousarray(distance(whole, grid.with_shape(whole.shape), cap)[tuple(middle)])  # type: ignore[arg-type]


def erode(mask: np.ndarray, grid: Grid, radius: float, *, border: bool = False) -> np.ndarray:
    """Voxels of ``mask`` about which a sphere of ``radius`` (mm) lies in the mask.

    A radius of 0 returns the mask. With ``border=False`` spheres must also lie within the volume.
    """
    grid.check("mask", mask)
    mask = np.ascontiguousarray(mask, dtype=bool)
    if radius <= 0 or not mask.any():
        return mask.copy()
    reach = radius * (1 + TOUCH)
    box = box_of(mask, (1, 1, 1))  # beyond a layer of outside nothing is nearer
    part = np.ascontiguousarray(mask[box])
    inner = grid.with_shape(part.shape)  # type: ignore[arg-type]
    out = np.zeros(mask.shape, dtype=bool)
    out[box] = distance(part, inner, reach + min(grid.voxel_size), border=border) > np.float32(reach)
    return out


def dilate(mask: np.ndarray, grid: Grid, radius: float) -> np.ndarray:
    """Voxels within ``radius`` (mm) of a voxel of ``mask``."""
    grid.check("mask", mask)
    mask = np.ascontiguousarray(mask, dtype=bool)
    if radius <= 0 or not mask.any():
        return mask.copy()
    box = box_of(mask, tuple(int(np.ceil(radius / v)) + 1 for v in grid.voxel_size))
    outside = ~mask[box]
    out = np.zeros(mask.shape, dtype=bool)
    out[box] = ~erode(outside, grid.with_shape(outside.shape), radius, border=True)
    return out


def opening(mask: np.ndarray, grid: Grid, radius: float) -> np.ndarray:
    """The part of ``mask`` that spheres of ``radius`` (mm) inside it reach; the volume's edge is no outside."""
    return dilate(erode(mask, grid, radius, border=True), grid, radius)


def closing(mask: np.ndarray, grid: Grid, radius: float) -> np.ndarray:
    """``mask`` with all gaps filled that no sphere of ``radius`` (mm) outside it can enter."""
    widths = [int(np.ceil(radius / v)) + 1 for v in grid.voxel_size]
    padded = np.pad(np.asarray(mask, dtype=bool), [(w, w) for w in widths])
    wide = grid.with_shape(padded.shape)  # type: ignore[arg-type]
    closed = erode(dilate(padded, wide, radius), wide, radius, border=True)
    inner = tuple(slice(w, w + n) for w, n in zip(widths, grid.shape, strict=True))
    return np.ascontiguousarray(closed[inner])


def largest_component(mask: np.ndarray, *, neighbours: int = 6) -> np.ndarray:
    """The connected component with most voxels (the first in scan order of equals); empty if ``mask`` is empty."""
    runs = Runs.of(mask, neighbours)
    sizes = runs.sizes()
    chosen = np.zeros(runs.count, dtype=bool)
    if runs.count:
        chosen[np.argmax(sizes)] = True
    return runs.mask(chosen)


def fill_holes(mask: np.ndarray, *, largest: int | None = None) -> np.ndarray:
    """``mask`` with its cavities filled: groups of outside voxels (6-connected) that do not reach the volume's edge.

    Parameters
    ----------
    mask
        Bool volume.
    largest
        Cavities of more voxels than this stay open; ``None`` fills all.
    """
    out = np.array(mask, dtype=bool)
    if not out.any():
        return out
    box = box_of(out)
    outside = Runs.of(~out[box])
    fill = ~outside.at_the_edge()
    if largest is not None:
        fill &= outside.sizes() <= largest
    out[box] |= outside.mask(fill)
    return out
