r"""The sampling grid of a volume: shape, voxel size and the direction of B0 in voxel axes.

For a NIfTI affine :math:`A` (voxel to RAS, mm), :math:`R` is its 3 x 3 part with every column divided by
its norm (the voxel size). The main field points along scanner z, so in voxel axes

.. math:: b = R^T (0, 0, 1)^T ,

the third row of :math:`R`. The inverse affine must not be used: with anisotropic voxels it gives a
direction in index space (37 instead of 25 degrees for 0.5 x 0.5 x 2 mm voxels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qsmxt.errors import InputError

if TYPE_CHECKING:
    import numpy as np

#: Largest cosine between two columns of an affine that still counts as orthogonal.
SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Grid:
    """Where the samples of a volume lie relative to each other and to B0.

    Attributes
    ----------
    shape
        Number of voxels along the three axes.
    voxel_size
        Distance of neighbouring voxels along the three axes, mm.
    b0_direction
        Unit vector of the main field in the frame of the voxel axes. Its sign does not matter.
    """

    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    b0_direction: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        size = tuple(float(v) for v in self.voxel_size)
        direction = tuple(float(b) for b in self.b0_direction)
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(f"grid shape: expected three positive numbers of voxels, found {self.shape}")
        if len(size) != 3 or not all(math.isfinite(v) and v > 0 for v in size):
            raise InputError(f"voxel size: expected three positive lengths in mm, found {self.voxel_size}")
        norm = math.sqrt(sum(b * b for b in direction))
        if len(direction) != 3 or not math.isfinite(norm) or norm == 0:
            raise InputError(f"B0 direction: expected a non-zero 3-vector, found {self.b0_direction}")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "voxel_size", size)
        object.__setattr__(self, "b0_direction", tuple(b / norm for b in direction))

    @classmethod
    def from_affine(cls, affine: np.ndarray, shape: tuple[int, ...]) -> Grid:
        """Grid of a NIfTI image.

        Parameters
        ----------
        affine
            4 x 4 voxel-to-RAS matrix, mm.
        shape
            Shape of the image; only the first three axes count.

        Raises
        ------
        InputError
            If the affine is not finite, is singular, or is sheared by more than 1e-3.
        """
        rows = [[float(affine[i][j]) for j in range(3)] for i in range(3)]
        if not all(math.isfinite(value) for row in rows for value in row):
            raise InputError("affine: expected finite numbers, found NaN or Inf; repair the image header")
        columns = [[rows[i][j] for i in range(3)] for j in range(3)]
        size = [math.sqrt(sum(c * c for c in column)) for column in columns]
        if min(size) <= 0:
            raise InputError("affine: expected three axes of non-zero length; repair the image header")
        unit = [[c / length for c in column] for column, length in zip(columns, size, strict=True)]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            cosine = sum(a * b for a, b in zip(unit[i], unit[j], strict=True))
            if abs(cosine) > SHEAR_TOLERANCE:
                raise InputError(
                    f"affine: expected orthogonal axes, found a cosine of {cosine:.4f} between axes {i} and {j}; "
                    "resample the image to a grid without shear"
                )
        return cls(
            shape=(int(shape[0]), int(shape[1]), int(shape[2])),
            voxel_size=(size[0], size[1], size[2]),
            b0_direction=(unit[0][2], unit[1][2], unit[2][2]),
        )

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel, mm^3."""
        return self.voxel_size[0] * self.voxel_size[1] * self.voxel_size[2]

    @property
    def obliquity(self) -> float:
        """Angle between B0 and the nearest voxel axis, rad."""
        return math.acos(min(1.0, max(abs(b) for b in self.b0_direction)))

    @property
    def slice_axis(self) -> int:
        """Axis along which voxels are longest by more than a tenth, else the one nearest B0."""
        order = sorted(range(3), key=lambda axis: self.voxel_size[axis])
        if self.voxel_size[order[2]] > 1.1 * self.voxel_size[order[1]]:
            return order[2]
        return max(range(3), key=lambda axis: abs(self.b0_direction[axis]))

    def with_shape(self, shape: tuple[int, int, int]) -> Grid:
        """The same sampling over another number of voxels."""
        return Grid(shape, self.voxel_size, self.b0_direction)

    def check(self, name: str, array: np.ndarray, *, echoes: int | None = None) -> None:
        """Raise :class:`InputError` unless ``array`` lies on this grid (with ``echoes`` leading, if given).

        So do arrays of libraries other than NumPy, which a method that computes on other devices has moved before.
        """
        check_host(name, array)
        expected = self.shape if echoes is None else (echoes, *self.shape)
        if tuple(array.shape) != expected:
            raise InputError(f"{name}: expected shape {expected}, found {tuple(array.shape)}")


def check_host(name: str, array: np.ndarray) -> None:
    """Raise :class:`InputError` if ``array`` belongs to a library other than NumPy."""
    if hasattr(array, "__dlpack__") and not hasattr(array, "__array_interface__"):
        raise InputError(
            f"{name}: expected a NumPy array, found one of {type(array).__module__.partition('.')[0]}; this method "
            "computes on the host: move the array there with .get() (CuPy) or .cpu().numpy() (PyTorch)"
        )
