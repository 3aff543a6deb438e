"""Threshold at a given value, in the unit of the image or as a fraction of its range or maximum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.masking.histogram import above
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class ValueParameters:
    """Parameters of :func:`value`."""

    threshold: float = parameter(0.5, help="voxels above this belong to the mask; unit as 'of' says")
    of: str = parameter(
        "unit",
        choices=("unit", "range", "maximum"),
        help="the threshold is in the unit of the image, a fraction of its range, or a fraction of its maximum",
    )


@method(
    stage="masking",
    key="value",
    title="Fixed threshold",
    consumes=("mask_input",),
    produces=("mask",),
    parameters=ValueParameters,
    sentence="A mask was made by a threshold of {threshold:g} ({of}).",
    cost=Cost(bytes_per_voxel=2, threads=1, seconds_per_megavoxel=0.01),
)
def value(
    image: np.ndarray, grid: Grid, parameters: ValueParameters = ValueParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask of the voxels of ``image`` ``(x, y, z)`` above the threshold.

    Raises
    ------
    InputError
        If the image has no finite voxel.
    """
    grid.check("mask_input", image)
    threshold = parameters.threshold
    if parameters.of != "unit":
        finite = image[np.isfinite(image)]
        if finite.size == 0:
            raise InputError("mask_input: expected finite voxels, found none")
        low = float(finite.min()) if parameters.of == "range" else 0.0
        threshold = low + threshold * (float(finite.max()) - low)
    return above(image, threshold)
