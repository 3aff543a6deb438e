"""Cutting a volume down to what matters, padding it to a length that transforms fast, and putting it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import fourier
from qsmxt.errors import InputError
from qsmxt.geometry import Grid


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


def box_of(mask: np.ndarray, widths: Sequence[int] = (0, 0, 0)) -> tuple[slice, ...]:
    """Bounding box of ``mask``, wider by so many voxels on both sides as far as there are any."""
    start, stop = bounding_box(mask)
    return tuple(slice(max(0, a - w), b + w) for a, b, w in zip(start, stop, widths, strict=True))


def bounding_box(mask: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First and one past the last voxel of ``mask`` along every axis; :class:`InputError` if it is empty."""
    start, stop = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if filled.size == 0:
            raise InputError("mask: expected at least one voxel, found an empty mask; check the masking step")
        start.append(int(filled[0]))
        stop.append(int(filled[-1]) + 1)
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])
