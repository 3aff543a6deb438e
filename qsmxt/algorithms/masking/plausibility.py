"""Numbers by which a mask is judged, and warnings when it cannot be right."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from qsmxt.algorithms.runs import Runs
from qsmxt.geometry import Grid

#: Volume of a human brain with its fluid, ml.
BRAIN_VOLUME = (800.0, 2200.0)

#: Share of the field of view from which on a mask is called all of it.
WHOLE = 0.9

_AXES = ("x", "y", "z")


def judge(mask: np.ndarray, grid: Grid, *, human_brain: bool) -> dict[str, Any]:
    """Volume (ml), Euler number, number of components, edges of the volume that are touched, and warnings."""
    sizes = np.sort(Runs.of(mask).sizes())[::-1]
    volume = float(mask.sum() * grid.voxel_volume / 1000)
    border = touched_edges(mask)
    warnings = []
    if human_brain:
        cut = bool(border) or min(mask.shape) == 1
        if volume > BRAIN_VOLUME[1] or (volume < BRAIN_VOLUME[0] and not cut):
            warnings.append(
                f"The mask has {volume:.0f} ml; a brain has {BRAIN_VOLUME[0]:.0f} to {BRAIN_VOLUME[1]:.0f} ml."
            )
        if mask.mean() > WHOLE:
            warnings.append(
                "The mask is nearly the whole field of view, which shows no background; the brain could not be "
                "separated from its surroundings."
            )
        elif border:
            warnings.append(f"The mask touches the edge of the field of view ({', '.join(border)}).")
        if len(sizes) > 1:
            warnings.append(f"The mask has {len(sizes)} pieces; the second has {sizes[1]} voxels.")
    return {
        "volume_ml": volume,
        "euler_number": euler_number(mask),
        "components": len(sizes),
        "touches_border": bool(border),
        "warnings": warnings,
    }


def touched_edges(mask: np.ndarray) -> list[str]:
    """Edges of the volume at which the mask has voxels, such as ``"z first"``; axes one voxel long do not count."""
    found = []
    for axis, name in enumerate(_AXES):
        if mask.shape[axis] == 1:
            continue
        for place, index in (("first", 0), ("last", -1)):
            if np.take(mask, index, axis).any():
                found.append(f"{name} {place}")
    return found


def euler_number(mask: np.ndarray) -> int:
    r"""Euler number of the cubical complex of the voxels: components - handles + cavities (1 for a solid ball).

    :math:`\chi = V - E + F - C` with the corners, edges and faces that belong to a voxel of the mask, and the voxels C.
    Voxels that share only an edge or a corner are connected.
    """
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    total = 0
    for dims in range(4):
        for axes in combinations(range(3), dims):
            cells = padded
            for axis in axes:
                first = [slice(None)] * 3
                second = [slice(None)] * 3
                first[axis], second[axis] = slice(0, -1), slice(1, None)
                cells = cells[tuple(first)] | cells[tuple(second)]
            total += (-1) ** (3 - dims) * int(cells.sum())
    return total


def dice(first: np.ndarray, second: np.ndarray) -> float:
    r"""Overlap :math:`2 |A \cap B| / (|A| + |B|)`; 1 for two empty masks."""
    size = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / size if size else 1.0


def agreement(parts: dict[str, np.ndarray]) -> dict[str, float]:
    """Dice of every pair of sections, by ``"first | second"``."""
    return {f"{a} | {b}": dice(parts[a], parts[b]) for a, b in combinations(parts, 2)}
