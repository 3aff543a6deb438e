"""Largest component: of the pieces that are connected through faces, the one with most voxels stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method


@dataclass(frozen=True)
class LargestParameters:
    """:func:`largest` has no parameters."""


@method(
    stage="masking",
    key="largest",
    title="Largest component",
    consumes=("mask",),
    produces=("mask",),
    parameters=LargestParameters,
    sentence="The largest connected component was kept.",
    cost=Cost(bytes_per_voxel=10, threads=1, seconds_per_megavoxel=0.03),
)
def largest(
    mask: np.ndarray,
    grid: Grid,
    parameters: LargestParameters = LargestParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Bool mask ``(x, y, z)`` of the largest piece of ``mask``; the first in scan order of equals."""
    grid.check("mask", mask)
    return morphology.largest_component(mask)
