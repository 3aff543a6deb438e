"""Cutting a volume down to what matters, padding it to a length that transforms fast, and putting it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import fourier, parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

#: Largest finite number.
LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class Crop:
    """A box of a grid, padded with zeros behind its end.

    Attributes
    ----------
    full
        Grid of the uncropped volume.
    start, stop
        First voxel and one past the last voxel of the box in the uncropped volume.
    before
        Zeros in front of the box along every axis.
    grid
        Grid of the cropped and padded volume.
    """

    full: Grid
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    before: tuple[int, int, int]
    grid: Grid

    @classmethod
    def around(cls, mask: np.ndarray, grid: Grid, *, margin: float = 0.0, padding: float = 0.0) -> Crop:
        """Box around ``mask``.

        Parameters
        ----------
        mask
            Bool volume; must not be empty.
        margin
            Length by which the box is wider than the mask on every side, mm, as far as there are data; what the volume
            lacks of it is added as zeros, so that the grid is as large as for a mask far from the border.
        padding
            Least length of zeros between the mask and its periodic copy, mm.
        """
        tight = start, stop = bounding_box(mask)
        widen = [int(np.ceil(margin / v)) for v in grid.voxel_size]
        start = tuple(max(0, a - w) for a, w in zip(start, widen, strict=True))  # type: ignore[assignment]
        stop = tuple(min(n, b + w) for n, b, w in zip(grid.shape, stop, widen, strict=True))  # type: ignore[assignment]
        size = tuple(b - a for a, b in zip(start, stop, strict=True))
        lacking = [b - a + 2 * w - n for a, b, w, n in zip(*tight, widen, size, strict=True)]
        gap = tuple(int(np.ceil(padding / v)) + n for v, n in zip(grid.voxel_size, lacking, strict=True))
        shape = fourier.fast_shape(size, gap)  # type: ignore[arg-type]
        before = tuple((n - s) // 2 for n, s in zip(shape, size, strict=True))
        return cls(grid, start, stop, before, grid.with_shape(shape))  # type: ignore[arg-type]

    @property
    def source(self) -> tuple[slice, slice, slice]:
        """The box in the uncropped volume."""
        a, b = self.start, self.stop
        return slice(a[0], b[0]), slice(a[1], b[1]), slice(a[2], b[2])

    @property
    def target(self) -> tuple[slice, slice, slice]:
        """The box in the padded volume."""
        w = self.before
        n = [b - a for a, b in zip(self.start, self.stop, strict=True)]
        return slice(w[0], w[0] + n[0]), slice(w[1], w[1] + n[1]), slice(w[2], w[2] + n[2])

    def extract(self, volume: np.ndarray) -> np.ndarray:
        """The box of ``volume`` on the padded grid (same dtype, zeros around it)."""
        out = np.zeros(self.grid.shape, dtype=volume.dtype)
        out[self.target] = volume[self.source]
        return out

    def restore(self, volume: np.ndarray) -> np.ndarray:
        """``volume`` back on the uncropped grid, zeros outside the box."""
        out = np.zeros(self.full.shape, dtype=volume.dtype)
        out[self.source] = volume[self.target]
        return out

    def extract_masked(self, volume: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, int]:
        """:meth:`extract` of float32 ``volume`` where ``mask`` (uncropped), 0 elsewhere; how many are not finite."""
        out = np.zeros(self.grid.shape, dtype=np.float32)
        broken = parallel.total(_extract, self._size[0], volume, mask, self.start, out, self.before, self._size)
        return out, int(broken)

    def restore_masked(self, volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """:meth:`restore` of float32 ``volume`` where ``mask`` (on the box), 0 elsewhere."""
        out = np.zeros(self.full.shape, dtype=np.float32)
        parallel.run(_extract, self._size[0], volume, mask, self.before, out, self.start, self._size)
        return out

    @property
    def _size(self) -> tuple[int, int, int]:
        """Voxels of the box without the zeros around it."""
        a, b = self.start, self.stop
        return b[0] - a[0], b[1] - a[1], b[2] - a[2]


def box_of(mask: np.ndarray, widths: Sequence[int] = (0, 0, 0)) -> tuple[slice, ...]:
    """Bounding box of ``mask``, wider by so many voxels on both sides as far as there are any."""
    start, stop = bounding_box(mask)
    return tuple(slice(max(0, a - w), b + w) for a, b, w in zip(start, stop, widths, strict=True))


def bounding_box(mask: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First and one past the last voxel of ``mask`` along every axis; :class:`InputError` if it is empty."""
    start, stop = [], []
    rows = np.asarray(mask.any(axis=2))
    for profile in (rows.any(axis=1), rows.any(axis=0), np.asarray(mask.any(axis=0)).any(axis=0)):
        filled = np.flatnonzero(profile)
        if filled.size == 0:
            raise InputError("mask: expected at least one voxel, found an empty mask; check the masking step")
        start.append(int(filled[0]))
        stop.append(int(filled[-1]) + 1)
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


@kernel
def _extract(start, stop, volume, mask, source, out, target, size):
    """Box of ``volume`` at ``source`` where ``mask`` to that of ``out`` at ``target``; how many are not finite."""
    broken = 0
    for i in range(start, stop):
        for j in range(size[1]):
            here = source[0] + i, source[1] + j
            row = volume[here[0], here[1], source[2] : source[2] + size[2]]
            kept = mask[here[0], here[1], source[2] : source[2] + size[2]]
            into = out[target[0] + i, target[1] + j, target[2] : target[2] + size[2]]
            part = np.float32(0)
            for k in range(size[2]):
                value = row[k]
                value = value if kept[k] else np.float32(0)
                into[k] = value
                part += np.float32(0) if abs(value) <= LARGEST else np.float32(1)
            broken += int(part)
    return broken
