"""What the outside of a mask reaches through voxels that let it pass."""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms.compiled import kernel


def reached(mask: np.ndarray, passable: np.ndarray) -> np.ndarray:
    """Voxels of ``mask`` that are ``passable`` and connected through such voxels (6 neighbours) to its outside.

    The edge of the volume is not an outside: a mask that is cut by the field of view is not entered there.
    """
    state = np.where(mask, np.where(passable, np.uint8(1), np.uint8(2)), np.uint8(0))
    _flood(state.reshape(-1), *mask.shape)
    return state == 3


@kernel
def _flood(state, nx, ny, nz):
    """1 (passable) becomes 3 where it is connected with 0 (outside)."""
    stack = np.empty(state.size, dtype=np.int32)
    depth = 0
    for x in range(nx):
        for y in range(ny):
            row = (x * ny + y) * nz
            for z in range(nz):
                i = row + z
                if state[i] != 1:
                    continue
                if (
                    (z > 0 and state[i - 1] == 0)
                    or (z < nz - 1 and state[i + 1] == 0)
                    or (y > 0 and state[i - nz] == 0)
                    or (y < ny - 1 and state[i + nz] == 0)
                    or (x > 0 and state[i - ny * nz] == 0)
                    or (x < nx - 1 and state[i + ny * nz] == 0)
                ):
                    stack[depth] = i
                    depth += 1
    for seed in range(depth):
        state[stack[seed]] = 3
    while depth:
        depth -= 1
        i = stack[depth]
        z, y, x = i % nz, (i // nz) % ny, i // (ny * nz)
        for d in range(6):
            if d == 0:
                inside, j = z > 0, i - 1
            elif d == 1:
                inside, j = z < nz - 1, i + 1
            elif d == 2:
                inside, j = y > 0, i - nz
            elif d == 3:
                inside, j = y < ny - 1, i + nz
            elif d == 4:
                inside, j = x > 0, i - ny * nz
            else:
                inside, j = x < nx - 1, i + ny * nz
            if inside and state[j] == 1:
                state[j] = 3
                stack[depth] = j
                depth += 1
