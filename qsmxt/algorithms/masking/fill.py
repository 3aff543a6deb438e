"""Filling of holes: cavities that the outside cannot reach through faces, and if asked gaps in single slices.

Cavities are found in three dimensions. Filling slice by slice would also close real openings such as the base of
the skull.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class FillParameters:
    """Parameters of :func:`fill`."""

    volume: float | None = parameter(None, unit="ml", above=0, help="largest cavity that is filled; none: all")


@method(
    stage="masking",
    key="fill",
    title="Filling of holes",
    consumes=("mask",),
    produces=("mask",),
    parameters=FillParameters,
    sentence="Holes in the mask were filled.",
    cost=Cost(bytes_per_voxel=10, threads=1, seconds_per_megavoxel=0.05),
)
def fill(
    mask: np.ndarray, grid: Grid, parameters: FillParameters = FillParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask ``(x, y, z)`` with the cavities of ``mask`` up to ``volume`` filled."""
    grid.check("mask", mask)
    largest = None if parameters.volume is None else int(1000 * parameters.volume / grid.voxel_volume)
    return morphology.fill_holes(mask, largest=largest)
