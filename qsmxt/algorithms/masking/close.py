"""Closing: gaps that no ball of ``radius`` (mm) outside the mask can enter are filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class CloseParameters:
    """Parameters of :func:`close`."""

    radius: float = parameter(2.0, unit="mm", above=0, at_most=100, help="radius of the ball")


@method(
    stage="masking",
    key="close",
    title="Closing",
    consumes=("mask",),
    produces=("mask",),
    parameters=CloseParameters,
    sentence="The mask was closed with a ball of {radius:g} mm.",
    cost=Cost(bytes_per_voxel=10, seconds_per_megavoxel=0.05),
)
def close(
    mask: np.ndarray, grid: Grid, parameters: CloseParameters = CloseParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask ``(x, y, z)`` that contains ``mask``."""
    grid.check("mask", mask)
    return morphology.closing(mask, grid, parameters.radius)
