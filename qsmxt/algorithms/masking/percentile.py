"""Threshold at a percentile of the finite voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.masking.histogram import above
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class PercentileParameters:
    """Parameters of :func:`percentile`."""

    percent: float = parameter(75.0, unit="%", at_least=0, below=100, help="share of all voxels that is left out")


@method(
    stage="masking",
    key="percentile",
    title="Threshold at a percentile",
    consumes=("mask_input",),
    produces=("mask",),
    parameters=PercentileParameters,
    sentence="A mask was made of the voxels above the {percent:g}th percentile.",
    cost=Cost(bytes_per_voxel=6, threads=1, seconds_per_megavoxel=0.05),
)
def percentile(
    image: np.ndarray,
    grid: Grid,
    parameters: PercentileParameters = PercentileParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Bool mask of the voxels of ``image`` ``(x, y, z)`` above the percentile of all finite voxels, zeros included.

    Raises
    ------
    InputError
        If the image has no finite voxel.
    """
    grid.check("mask_input", image)
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        raise InputError("mask_input: expected finite voxels, found none")
    return above(image, float(np.percentile(finite, parameters.percent)))
