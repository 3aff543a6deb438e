r"""No referencing: the map keeps the offset that the inversion gave it.

References
----------
None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.referencing.offset import checked_chi
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method


@dataclass(frozen=True)
class NoneParameters:
    """:func:`none` has no parameters."""


@method(
    stage="referencing",
    key="none",
    title="No reference",
    consumes=("chi", "mask"),
    produces=("chi", "reference_offset"),
    parameters=NoneParameters,
    sentence="Susceptibility was not referenced to a region.",
    cost=Cost(bytes_per_voxel=8, seconds_per_megavoxel=0.02),
    linear=True,
)
def none(
    chi: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: NoneParameters = NoneParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``chi`` (ppm) in the mask, zero outside; and the offset 0."""
    chi, mask = checked_chi(chi, mask, grid)
    return np.where(mask, chi, 0).astype(np.float32), np.zeros((), dtype=np.float32)
