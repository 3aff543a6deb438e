"""Load the arrays of a processing unit: wrapped phase in radians, magnitude, geometry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qsmxt.bids.units import ProcessingUnit
from qsmxt.geometry import Grid


@dataclass
class Acquisition:
    """Arrays and numbers of one unit.

    Attributes
    ----------
    wrapped_phase
        (echo, x, y, z) float32, rad in [-pi, pi], positive for paramagnetic fields.
    magnitude
        (echo, x, y, z) float32; ones where the unit has none (see ``has_magnitude``).
    echo_times
        float64, s, ascending.
    field_strength
        T.
    affine
        4 x 4 voxel-to-RAS matrix, mm.
    grid
        Sampling and B0 direction.
    has_magnitude
        False if there was no magnitude image.
    notes
        Every correction applied, in words.
    corrections
        The same for the sidecar of derivatives.
    """

    wrapped_phase: np.ndarray
    magnitude: np.ndarray
    echo_times: np.ndarray
    field_strength: float
    affine: np.ndarray
    grid: Grid
    has_magnitude: bool = True
    notes: list[str] = field(default_factory=list)
    corrections: dict[str, Any] = field(default_factory=dict)


def check_unit(unit: ProcessingUnit) -> None:
    """Stub."""
    raise NotImplementedError


def load_acquisition(
    unit: ProcessingUnit, *, phase_sign: str = "auto", phase_range: tuple[float, float] | None = None
) -> Acquisition:
    """Stub."""
    raise NotImplementedError
