"""Checks of arrays with an echo axis and of the numbers that belong to the acquisition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.rows import span
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

#: Echo times closer than this count as equal, s.
SHORTEST_SPACING = 1e-6

#: Echo times longer than this are taken for milliseconds, s.
LONGEST_TIME = 0.5


def check_times(echo_times: Sequence[float] | np.ndarray, *, at_least: int = 1, remedy: str = "") -> np.ndarray:
    """Echo times as float64, s; :class:`InputError` unless they are positive, finite and strictly ascending.

    ``at_least`` is the number of echoes that the caller needs, ``remedy`` what to do if there are fewer.
    """
    times = np.atleast_1d(np.asarray(echo_times, dtype=np.float64))
    listed = ", ".join(f"{t:g}" for t in times)
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all() or times.min() <= 0:
        raise InputError(f"echo times: expected positive times in seconds, found {listed or 'none'}")
    if times.max() > LONGEST_TIME:
        raise InputError(f"echo times: expected seconds, found {listed}, which look like milliseconds; divide by 1000")
    if times.size < at_least:
        raise InputError(f"echo times: expected at least {at_least} echoes, found {times.size}; {remedy}".rstrip("; "))
    if times.size > 1 and np.diff(times).min() < SHORTEST_SPACING:
        raise InputError(
            f"echo times: expected strictly ascending times, found {listed} s; "
            "order the echoes by time and remove repeated ones"
        )
    return times


def check_echoes(name: str, array: np.ndarray, grid: Grid, times: np.ndarray) -> np.ndarray:
    """``array`` as C-ordered float32; :class:`InputError` unless it is real, ``(echo, x, y, z)``, on the grid."""
    if array.ndim != 4:
        raise InputError(f"{name}: expected (echo, x, y, z), found an array of {array.ndim} dimensions")
    grid.check(name, array, echoes=len(times))
    if np.iscomplexobj(array):
        raise InputError(f"{name}: expected real values, found {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.float32)


def check_signal(name: str, echoes: np.ndarray, mask: np.ndarray) -> None:
    """:class:`InputError` if no value of ``echoes`` ``(echo, x, y, z)`` is above zero in the mask."""
    if not any(np.any(echo, where=mask) for echo in echoes):
        raise InputError(f"{name}: expected positive values in the mask, found none; check the magnitude images")


def check_field_strength(field_strength: float) -> float:
    """The field strength in T; :class:`InputError` unless it is positive and at most 30 T."""
    value = float(field_strength)
    if not 0 < value <= 30:
        raise InputError(f"field strength: expected a value between 0 and 30 T, found {value:g}")
    return value


def usable_voxels(arrays: Sequence[np.ndarray], grid: Grid, mask: np.ndarray | None) -> np.ndarray:
    """Voxels of the mask (or all) in which every echo of every array is finite, bool ``(x, y, z)``.

    Raises
    ------
    InputError
        If the mask does not lie on the grid or no voxel is left.
    """
    if mask is None:
        usable = np.ones(grid.shape, dtype=bool)
    else:
        grid.check("mask", mask)
        usable = np.array(mask, dtype=bool, order="C")
        if not usable.any():
            raise InputError("mask: expected at least one voxel, found an empty mask; check the masking step")
    for array in arrays:
        echoes = np.ascontiguousarray(array if array.ndim == 4 else array[None])
        parallel.run(_drop_broken, usable.shape[0], echoes, usable.view(np.uint8))
    if not usable.any():
        raise InputError("phase: expected finite values in the mask, found only NaN or Inf; check the input images")
    return usable


@kernel
def _drop_broken(start, stop, echoes, usable):
    """Zero what is not finite in every echo."""
    for x in range(start, stop):
        for y in range(usable.shape[1]):
            a, b = span(usable[x, y])
            inside = usable[x, y, a:b]
            for e in range(echoes.shape[0]):
                row = echoes[e, x, y, a:b]
                for z in range(row.size):
                    inside[z] = inside[z] if np.isfinite(row[z]) else np.uint8(0)
