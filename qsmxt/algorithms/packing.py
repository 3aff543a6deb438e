"""Volumes of which only some voxels matter, as vectors of those: shorter sums and less memory for iterative solvers."""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.rows import span


class Packing:
    """Which voxels of a volume, or samples of a half spectrum, are kept.

    Parameters
    ----------
    mask
        Bool ``(x, y, z)``.
    factors
        What packed values are multiplied with, one number for every z, float32; 1 if not given. Unpacking divides.

    >>> packing = Packing(np.array([[[True, False, True]]]))
    >>> packing.pack(np.array([[[3, 4, 5]]], np.float32)).tolist()
    [3.0, 5.0]
    >>> packing.unpack(np.array([1, 2], np.float32)).tolist()
    [[[1.0, 0.0, 2.0]]]
    """

    def __init__(self, mask: np.ndarray, factors: np.ndarray | None = None) -> None:
        self.mask = mask
        counts = np.count_nonzero(mask, axis=2)
        ends = np.cumsum(counts.ravel())
        self.size = int(ends[-1])
        self._starts, self._counts = (ends - counts.ravel()).reshape(counts.shape), counts
        self._down = np.ones(mask.shape[2], dtype=np.float32) if factors is None else factors
        self._up = (1 / self._down).astype(np.float32)

    def pack(self, volume: np.ndarray) -> np.ndarray:
        """The values of ``volume`` (float32 or complex64) that are kept, in the order of the memory."""
        out = np.empty(self.size, dtype=volume.dtype)
        parallel.run(_pack, self.mask.shape[0], volume, self.mask, self._starts, self._counts, self._down, out)
        return out

    def pack_planes(self, start: int, stop: int, planes: np.ndarray, out: np.ndarray) -> None:
        """Write the values of the ``planes`` from ``start`` to ``stop`` where they belong in ``out``."""
        here = slice(start, stop)
        _pack(0, stop - start, planes, self.mask[here], self._starts[here], self._counts[here], self._down, out)

    def unpack_planes(self, start: int, stop: int, values: np.ndarray, planes: np.ndarray) -> None:
        """The ``planes`` from ``start`` to ``stop`` of the volume of ``values``."""
        here = slice(start, stop)
        _unpack(0, stop - start, values, self.mask[here], self._starts[here], self._counts[here], self._up, planes)

    def unpack(self, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """A volume, ``out`` if that is given, with ``values`` where they belong, and 0 elsewhere."""
        if out is None:
            out = np.empty(self.mask.shape, dtype=values.dtype)
        parallel.run(_unpack, self.mask.shape[0], values, self.mask, self._starts, self._counts, self._up, out)
        return out

    def pack_spectrum(self, spectrum: np.ndarray) -> np.ndarray:
        """A half spectrum packed, real and imaginary parts as numbers of their own."""
        return self.pack(spectrum).view(np.float32)

    def unpack_spectrum(self, values: np.ndarray) -> np.ndarray:
        """What :meth:`pack_spectrum` packed."""
        return self.unpack(values.view(np.complex64))


@kernel
def _pack(start, stop, volume, mask, starts, counts, factors, out):
    for i in range(start, stop):
        for j in range(mask.shape[1]):
            at, count = starts[i, j], counts[i, j]
            if count == 0:
                continue
            first, last = span(mask[i, j])
            if last - first == count:
                row, factor, into = volume[i, j, first:last], factors[first:last], out[at : at + count]
                for k in range(count):
                    into[k] = row[k] * factor[k]
                continue
            for k in range(first, last):
                if mask[i, j, k]:
                    out[at] = volume[i, j, k] * factors[k]
                    at += 1


@kernel
def _unpack(start, stop, values, mask, starts, counts, factors, out):
    for i in range(start, stop):
        for j in range(mask.shape[1]):
            at, count = starts[i, j], counts[i, j]
            first, last = (0, 0) if count == 0 else span(mask[i, j])
            row = out[i, j]
            row[:first] = 0
            row[last:] = 0
            if last - first == count:
                part, factor, into = values[at : at + count], factors[first:last], row[first:last]
                for k in range(count):
                    into[k] = part[k] * factor[k]
                continue
            for k in range(first, last):
                if mask[i, j, k]:
                    row[k] = values[at] * factors[k]
                    at += 1
                else:
                    row[k] = 0
