"""Dilation: every voxel within ``radius`` (mm) of the mask joins it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class DilateParameters:
    """Parameters of :func:`dilate`."""

    radius: float = parameter(1.0, unit="mm", above=0, at_most=100, help="by how much the mask grows")


@method(
    stage="masking",
    key="dilate",
    title="Dilation",
    consumes=("mask",),
    produces=("mask",),
    parameters=DilateParameters,
    sentence="The mask was dilated by {radius:g} mm.",
    cost=Cost(bytes_per_voxel=10, seconds_per_megavoxel=0.05),
)
def dilate(
    mask: np.ndarray, grid: Grid, parameters: DilateParameters = DilateParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask of the voxels within ``radius`` of ``mask`` ``(x, y, z)``."""
    grid.check("mask", mask)
    return morphology.dilate(mask, grid, parameters.radius)
