"""Erosion: a voxel stays if a ball of ``radius`` (mm) about it lies in the mask.

The edge of the field of view does not erode: what lies beyond it counts as mask, so a slab keeps its first slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class ErodeParameters:
    """Parameters of :func:`erode`."""

    radius: float = parameter(1.0, unit="mm", above=0, at_most=100, help="by how much the mask shrinks")


@method(
    stage="masking",
    key="erode",
    title="Erosion",
    consumes=("mask",),
    produces=("mask",),
    parameters=ErodeParameters,
    sentence="The mask was eroded by {radius:g} mm.",
    cost=Cost(bytes_per_voxel=10, seconds_per_megavoxel=0.05),
)
def erode(
    mask: np.ndarray, grid: Grid, parameters: ErodeParameters = ErodeParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask of the voxels of ``mask`` ``(x, y, z)`` further than ``radius`` from its outside."""
    grid.check("mask", mask)
    return morphology.erode(mask, grid, parameters.radius, border=True)
