"""Volumes of which only some voxels matter, as vectors of those: shorter sums and less memory for iterative solvers."""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel


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
        self._starts = (ends - counts.ravel()).reshape(counts.shape)
        self._down = np.ones(mask.shape[2], dtype=np.float32) if factors is None else factors
        self._up = (1 / self._down).astype(np.float32)

    def pack(self, volume: np.ndarray) -> np.ndarray:
        """The values of ``volume`` (float32 or complex64) that are kept, in the order of the memory."""
        out = np.empty(self.size, dtype=volume.dtype)
        parallel.run(_pack, self.mask.shape[0], volume, self.mask, self._starts, self._down, out)
        return out

    def unpack(self, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """A volume, ``out`` if that is given, with ``values`` where they belong, and 0 elsewhere."""
        if out is None:
            out = np.empty(self.mask.shape, dtype=values.dtype)
        parallel.run(_unpack, self.mask.shape[0], values, self.mask, self._starts, self._up, out)
        return out

    def pack_spectrum(self, spectrum: np.ndarray) -> np.ndarray:
        """A half spectrum packed, real and imaginary parts as numbers of their own."""
        return self.pack(spectrum).view(np.float32)

    def unpack_spectrum(self, values: np.ndarray) -> np.ndarray:
        """What :meth:`pack_spectrum` packed."""
        return self.unpack(values.view(np.complex64))


@kernel
def _pack(start, stop, volume, mask, starts, factors, out):
    for i in range(start, stop):
        for j in range(mask.shape[1]):
            at = starts[i, j]
            for k in range(mask.shape[2]):
                if mask[i, j, k]:
                    out[at] = volume[i, j, k] * factors[k]
                    at += 1


@kernel
def _unpack(start, stop, values, mask, starts, factors, out):
    for i in range(start, stop):
        for j in range(mask.shape[1]):
            at = starts[i, j]
            for k in range(mask.shape[2]):
                if mask[i, j, k]:
                    out[i, j, k] = values[at] * factors[k]
                    at += 1
                else:
                    out[i, j, k] = 0
