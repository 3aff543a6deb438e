"""Rows of masks in kernels."""

from __future__ import annotations

from qsmxt.algorithms.compiled import kernel


@kernel
def span(row):
    """First and one past the last element of a row that is not zero; equal if there is none."""
    first, last = 0, row.size
    while first < last and not row[first]:
        first += 1
    while last > first and not row[last - 1]:
        last -= 1
    return first, last
