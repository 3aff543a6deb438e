"""Opening: parts of the mask that no ball of ``radius`` (mm) inside it can reach are removed.

The edge of the field of view counts as mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class OpenParameters:
    """Parameters of :func:`open`."""

    radius: float = parameter(2.0, unit="mm", above=0, at_most=100, help="radius of the ball")


@method(
    stage="masking",
    key="open",
    title="Opening",
    consumes=("mask",),
    produces=("mask",),
    parameters=OpenParameters,
    sentence="The mask was opened with a ball of {radius:g} mm.",
    cost=Cost(bytes_per_voxel=10, seconds_per_megavoxel=0.05),
)
def open(
    mask: np.ndarray, grid: Grid, parameters: OpenParameters = OpenParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask ``(x, y, z)`` within ``mask``."""
    grid.check("mask", mask)
    return morphology.opening(mask, grid, parameters.radius)
