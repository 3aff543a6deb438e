"""Quantiles of large arrays by counting: exact, in two or three passes over memory instead of a sort."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qsmxt.algorithms.compiled import kernel

#: Bits of a number that the first pass looks at; the others see the rest.
_HALF = 16


def quantiles(values: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """Quantiles of float32 ``values`` of any shape, not empty, without NaN, with linear interpolation, float32.

    What :func:`numpy.quantile` gives of finite values, in a quarter of its time.

    >>> quantiles(np.array([4, 1, 3, 2], np.float32), (0, 0.5, 1)).tolist()
    [1.0, 2.5, 4.0]
    """
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    bits = flat.view(np.uint32)
    upper = np.cumsum(_count_upper(bits))
    tables: dict[int, np.ndarray] = {}

    def ranked(rank: int) -> float:
        """The element of ``rank`` in ascending order."""
        top = int(np.searchsorted(upper, rank, side="right"))
        if top not in tables:
            tables[top] = np.cumsum(_count_lower(bits, top))
        left = rank - (int(upper[top - 1]) if top else 0)
        key = (top << _HALF) + int(np.searchsorted(tables[top], left, side="right"))
        pattern = key ^ 0x80000000 if key >> 31 else key ^ 0xFFFFFFFF
        return float(np.array(pattern, dtype=np.uint32).view(np.float32))

    found = []
    for fraction in fractions:
        position = fraction * (flat.size - 1)
        rank = int(position)
        low = ranked(rank)
        part = position - rank
        high = ranked(rank + 1) if part > 0 else low
        found.append(low if high == low else low + part * (high - low))
    return np.array(found, dtype=np.float32)


def quantile(values: np.ndarray, fraction: float) -> float:
    """Quantile of any ``values``, not empty; by counting if they are single precision and no NaN.

    >>> quantile(np.array([1, 2, np.inf], np.float32), 0.5)
    2.0
    """
    if values.dtype == np.float32 and not np.isnan(values).any():
        return float(quantiles(values, (fraction,))[0])
    return float(np.quantile(values, fraction))


@kernel
def _key(pattern):
    """Bits of a float32 as an integer in the order of the numbers."""
    return pattern ^ np.uint32(0x80000000) if pattern < np.uint32(0x80000000) else ~pattern


@kernel
def _count_upper(bits):
    counts = np.zeros(65536, dtype=np.int64)
    for i in range(bits.size):
        counts[_key(bits[i]) >> np.uint32(16)] += 1
    return counts


@kernel
def _count_lower(bits, top):
    counts = np.zeros(65536, dtype=np.int64)
    for i in range(bits.size):
        key = _key(bits[i])
        if key >> np.uint32(16) == top:
            counts[key & np.uint32(0xFFFF)] += 1
    return counts
