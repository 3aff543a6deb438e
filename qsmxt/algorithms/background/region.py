r"""The region in which a background field is removed, and what every method of the stage does before and after.

The total field is :math:`f = f_l + f_b`. The background :math:`f_b` has its sources outside the mask M, hence is
harmonic inside: :math:`\nabla^2 f_b = 0`, and its mean over any sphere in M is its value at the centre. The local field
:math:`f_l` has its sources inside. A function that is harmonic in M and small cannot be told from a background, so
every method leaves its own part of :math:`f_l` in the background.

A constant is harmonic; the mean of the field over the mask is taken away first, which keeps single precision accurate.
Fields are relative (ppm), lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.domain import checked_mask, masked
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

EMPTY_INTERIOR = (
    "mask: expected voxels whose six neighbours are in the mask, found none (a single slice?); "
    "use a method that does not erode, such as pdf"
)


@dataclass(frozen=True)
class Region:
    """The box around the mask.

    Attributes
    ----------
    crop
        How the box lies in the uncropped volume.
    field
        Total field on the box without its mean, ppm, float32, zero outside the mask.
    mask
        Mask on the box, bool.
    """

    crop: Crop
    field: np.ndarray
    mask: np.ndarray

    @classmethod
    def around(cls, total_field: np.ndarray, mask: np.ndarray, grid: Grid, *, padding: float) -> Region:
        """Check the arrays and crop them, with at least ``padding`` mm between the mask and its periodic copy.

        Raises
        ------
        InputError
            If a shape does not match the grid, the mask is empty or not of 0 and 1, or the field has NaN or Inf in it.
        """
        mask = checked_mask(mask, grid)
        crop = Crop.around(mask, grid, padding=padding)
        field = masked("total_field", total_field, mask, crop)
        inside = crop.extract(mask)
        field -= inside * np.float32(field.sum(dtype=np.float64) / np.count_nonzero(inside))
        return cls(crop, field, inside)

    @property
    def grid(self) -> Grid:
        """Grid of the box."""
        return self.crop.grid

    def at_least_a_voxel(self, radius: float) -> float:
        """``radius``, or the largest voxel side if that is larger: a smaller sphere would hold a single voxel."""
        return max(radius, *self.grid.voxel_size)

    def interior(self, radius: float) -> np.ndarray:
        """The voxels about which a sphere of ``radius`` (mm) lies in the mask; :class:`InputError` if there is none."""
        inside = morphology.erode(self.mask, self.grid, radius)
        self.require(inside, radius)
        return inside

    def require(self, inside: np.ndarray, radius: float) -> None:
        """Raise :class:`InputError` if erosion by ``radius`` left nothing."""
        if not inside.any():
            raise InputError(
                f"mask: expected a region wider than spheres of {radius:g} mm radius, found none; "
                "take a smaller radius or a method that does not erode, such as pdf"
            )

    def finish(self, local: Any, kept: np.ndarray, engine: Engine = HOST) -> tuple[Any, Any]:
        """Local field (zero outside ``kept``) and ``kept`` itself on the uncropped grid, where ``engine`` computes."""
        local = np.asarray(engine.fetch(local), dtype=np.float32)
        return engine.send(self.crop.restore_masked(local, kept)), engine.send(self.crop.restore(kept))
