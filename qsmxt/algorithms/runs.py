"""Connected components by the runs of a mask.

A run is a maximal row of voxels of the mask along the last axis. Runs of neighbouring rows that touch are joined in a
forest whose roots are the first runs in scan order, so the components are in scan order, too. After the mask has been
read once, the work is that of the runs and not of the voxels.

References
----------
He, Chao and Suzuki 2008 (doi:10.1109/TIP.2008.919369).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.errors import InputError

#: How far apart runs of rows that share a face and of rows that share an edge may end and still touch; -1 for never.
_REACH = {6: (0, -1), 18: (1, 0), 26: (1, 1)}


@dataclass(frozen=True)
class Runs:
    """Runs of a mask and the components they belong to.

    Attributes
    ----------
    shape
        Shape of the mask.
    offsets
        Number of runs before every row, and their number in all: int64 ``(nx ny + 1,)``.
    first, last
        First and one past the last voxel of every run, int32.
    labels
        Component of every run, from 0, in scan order.
    count
        Number of components.
    """

    shape: tuple[int, int, int]
    offsets: np.ndarray
    first: np.ndarray
    last: np.ndarray
    labels: np.ndarray
    count: int

    @classmethod
    def of(cls, mask: np.ndarray, neighbours: int = 6) -> Runs:
        """Runs of a bool mask whose voxels have 6, 18 or 26 neighbours; any other number is an :class:`InputError`."""
        if neighbours not in _REACH:
            raise InputError(f"neighbours: expected 6, 18 or 26, found {neighbours}")
        mask = np.ascontiguousarray(mask, dtype=bool)
        nx, ny, _ = mask.shape
        offsets = np.zeros(nx * ny + 1, dtype=np.int64)
        parallel.run(_count, nx, mask, offsets[1:])
        np.cumsum(offsets, out=offsets)
        first, last = np.empty((2, int(offsets[-1])), dtype=np.int32)
        parallel.run(_find, nx, mask, offsets, first, last)
        labels = np.empty(first.size, dtype=np.int32)
        count = _join(offsets, first, last, nx, ny, *_REACH[neighbours], labels)
        return cls(mask.shape, offsets, first, last, labels, count)

    def sizes(self) -> np.ndarray:
        """Number of voxels of every component, int64."""
        return np.bincount(self.labels, self.last - self.first, self.count).astype(np.int64)

    def at_the_edge(self) -> np.ndarray:
        """Which components reach the edge of the volume, bool."""
        nx, ny, nz = self.shape
        rows = np.zeros((nx, ny), dtype=bool)
        rows[[0, -1]] = rows[:, [0, -1]] = True
        edge = np.repeat(rows.reshape(-1), np.diff(self.offsets)) | (self.first == 0) | (self.last == nz)
        return np.bincount(self.labels[edge], minlength=self.count) > 0

    def mask(self, chosen: np.ndarray) -> np.ndarray:
        """Mask of the components that are ``chosen``, bool ``(count,)``."""
        out = np.zeros(self.shape, dtype=bool)
        if chosen.any():
            parallel.run(_paint, self.shape[0], self.offsets, self.first, self.last, chosen[self.labels], out)
        return out


@kernel
def _count(start, stop, mask, counts):
    ny, nz = mask.shape[1], mask.shape[2]
    for x in range(start, stop):
        for y in range(ny):
            row = mask[x, y]
            found = int(row[0]) if nz else 0
            for z in range(1, nz):
                found += row[z] and not row[z - 1]
            counts[x * ny + y] = found


@kernel
def _find(start, stop, mask, offsets, first, last):
    ny, nz = mask.shape[1], mask.shape[2]
    for x in range(start, stop):
        for y in range(ny):
            row, at = mask[x, y], offsets[x * ny + y]
            end, z = offsets[x * ny + y + 1], 0
            while at < end:
                while not row[z]:
                    z += 1
                first[at] = z
                while z < nz and row[z]:
                    z += 1
                last[at] = z
                at += 1


@kernel
def _root(parent, run):
    """Root of the tree of ``run``, which from now on hangs lower."""
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@kernel
def _join_rows(offsets, first, last, here, there, reach, parent):
    """Join the runs of two rows that overlap or end ``reach`` voxels apart at most."""
    a, a_end = offsets[here], offsets[here + 1]
    b, b_end = offsets[there], offsets[there + 1]
    while a < a_end and b < b_end:
        if first[a] < last[b] + reach and first[b] < last[a] + reach:
            one, two = _root(parent, a), _root(parent, b)
            if one < two:
                parent[two] = one
            else:
                parent[one] = two
        if last[a] < last[b]:
            a += 1
        else:
            b += 1


@kernel
def _join(offsets, first, last, nx, ny, face, edge, parent):
    """Join all runs that touch; ``parent`` becomes their components. Returns how many there are."""
    for run in range(parent.size):
        parent[run] = run
    for x in range(nx):
        for y in range(ny):
            here = x * ny + y
            if offsets[here] == offsets[here + 1]:
                continue
            if y > 0:
                _join_rows(offsets, first, last, here, here - 1, face, parent)
            if x > 0:
                _join_rows(offsets, first, last, here, here - ny, face, parent)
            if x > 0 and edge >= 0:
                if y > 0:
                    _join_rows(offsets, first, last, here, here - ny - 1, edge, parent)
                if y < ny - 1:
                    _join_rows(offsets, first, last, here, here - ny + 1, edge, parent)
    count = 0
    for run in range(parent.size):
        if parent[run] == run:
            parent[run] = count
            count += 1
        else:
            parent[run] = parent[parent[run]]
    return count


@kernel
def _paint(start, stop, offsets, first, last, chosen, out):
    ny = out.shape[1]
    for x in range(start, stop):
        for y in range(ny):
            for run in range(offsets[x * ny + y], offsets[x * ny + y + 1]):
                if chosen[run]:
                    out[x, y, first[run] : last[run]] = True
