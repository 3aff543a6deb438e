r"""Sliding minimum along the slices, on the grid of the image.

.. math:: P(r) = \min_{|n| \le h,\; r + n e \in M} I(r + n e), \qquad 2h + 1 \approx \text{thickness} / v

for voxels r of the mask M, e being one step along the slice axis (:attr:`qsmxt.geometry.Grid.slice_axis`) and v the
distance of the slices. The window is centred and cut off at the ends, so every slice is kept and the geometry is that
of the image. Voxels outside the mask do not count, else the rim of the brain would be black.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.geometry import Grid
from qsmxt.registry.methods import parameter

#: What every method of the stage makes, in order.
PRODUCES = ("swi", "minimum_intensity_projection")


@dataclass(frozen=True)
class ProjectionParameters:
    """Parameters that all methods of the stage share."""

    thickness: float = parameter(
        7.0,
        unit="mm",
        above=0,
        help="thickness of the minimum projection; rounded to an odd number of slices",
    )


def slices_last(volume: np.ndarray, axis: int) -> np.ndarray:
    """``volume`` with the slice axis last, C-ordered."""
    return np.ascontiguousarray(np.moveaxis(volume, axis, -1))


def slices_back(volume: np.ndarray, axis: int) -> np.ndarray:
    """Inverse of :func:`slices_last`."""
    return np.ascontiguousarray(np.moveaxis(volume, -1, axis))


def half_window(thickness: float, distance: float) -> int:
    """Slices on each side of the centre for a window of about ``thickness``; both in mm."""
    return max(0, round((thickness / distance - 1) / 2))


def minimum_intensity_projection(image: np.ndarray, mask: np.ndarray, grid: Grid, thickness: float) -> np.ndarray:
    """Minimum of ``image`` over ``thickness`` mm of slices, float32 ``(x, y, z)``, 0 outside the mask.

    >>> image = np.array([5, 4, 3, 9, 8], dtype=np.float32).reshape(1, 1, 5)
    >>> minimum_intensity_projection(image, image > 3, Grid((1, 1, 5)), 3.0).ravel().tolist()
    [4.0, 4.0, 0.0, 8.0, 8.0]
    """
    axis = grid.slice_axis
    half = half_window(thickness, grid.voxel_size[axis])
    source, inside = slices_last(image, axis), slices_last(mask, axis)
    out: np.ndarray = np.zeros(source.shape, dtype=np.float32)
    parallel.run(_sliding_minimum, out.shape[0], source, inside, half, out)
    return slices_back(out, axis)


@kernel
def _sliding_minimum(start, stop, image, mask, half, out):
    nz = image.shape[2]
    row = np.full(nz + 2 * half, np.inf, dtype=np.float32)
    lowest = np.empty(nz, dtype=np.float32)
    for x in range(start, stop):
        for y in range(image.shape[1]):
            values, inside, target = image[x, y], mask[x, y], out[x, y]
            if not inside.any():
                continue
            for z in range(nz):
                row[z + half] = values[z] if inside[z] else np.float32(np.inf)
            lowest[:] = row[:nz]
            for n in range(1, 2 * half + 1):
                other = row[n : n + nz]
                for z in range(nz):
                    lowest[z] = min(lowest[z], other[z])
            for z in range(nz):
                target[z] = lowest[z] if inside[z] else np.float32(0)
