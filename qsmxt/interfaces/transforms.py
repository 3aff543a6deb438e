"""Displacements and composite transforms in the files of ITK.

Displacements here are arrays ``(x, y, z, 3)`` of mm to the right, front and top on the grid of an affine; ITK's world
runs to left, back and top. A composite file holds several transforms in one, so that labels go through all of them in
one interpolation. It is written here and not by ANTs, which puts the time into the file: equal transforms must be
equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qsmxt.algorithms.template import positions, sampled
from qsmxt.interfaces.registration import Volume, ants, to_ants

_FLIP = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Displacement:
    """Displacement ``(x, y, z, 3)``, mm to the right, front and top, and the affine of its grid; zero beyond it."""

    field: np.ndarray
    affine: np.ndarray


def read_displacement(path: str) -> Displacement:
    """A displacement in a file of ANTs, float64."""
    image = ants().image_read(path)
    affine = np.eye(4)
    affine[:3, :3] = _FLIP[:, None] * np.asarray(image.direction) * np.asarray(image.spacing)
    affine[:3, 3] = _FLIP * np.asarray(image.origin)
    return Displacement(image.numpy().astype(np.float64) * _FLIP, affine)


def write_displacement(given: Displacement, path: Path) -> str:
    """Inverse of :func:`read_displacement`."""
    like = to_ants(Volume(np.zeros(given.field.shape[:3], np.float32), given.affine))
    turned = np.ascontiguousarray(given.field * _FLIP, dtype=np.float32)
    image = ants().from_numpy(
        turned, origin=like.origin, spacing=like.spacing, direction=like.direction, has_components=True
    )
    ants().image_write(image, str(path))
    return str(path)


def world(grid: Volume) -> np.ndarray:
    """Place of every voxel ``(x, y, z, 3)``, mm."""
    points: np.ndarray = positions(grid.array.shape) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return points


def displaced(points: np.ndarray, by: Displacement) -> np.ndarray:
    """Where ``points`` (mm) go; beyond the grid of the displacement they stay."""
    back = np.linalg.inv(by.affine)
    voxels = points @ back[:3, :3].T + back[:3, 3]
    inside = np.all((voxels >= -0.5) & (voxels <= np.array(by.field.shape[:3]) - 0.5), axis=-1)
    moved = np.array(points)
    moved[inside] += sampled(by.field, voxels[inside])
    return moved


def write_composite(parts: Sequence[Displacement | np.ndarray], path: Path) -> Path:
    """Displacements and 4 x 4 matrices (mm) as one transform; points go through the first part first.

    The bytes depend on the parts alone.
    """
    import h5py

    from qsmxt.bids.atomic import write_bytes

    text = h5py.string_dtype("ascii")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        for name, value in (("HDFVersion", "1.12"), ("ITKVersion", "5.4"), ("OSName", ""), ("OSVersion", "")):
            file.create_dataset(name, (1,), dtype=text, data=[value])
        group = file.create_group("TransformGroup")
        group.create_dataset("0/TransformType", (1,), dtype=text, data=["CompositeTransform_float_3_3"])
        for number, part in enumerate(reversed(parts), 1):
            kind, fixed, values = _of_matrix(part) if isinstance(part, np.ndarray) else _of_displacement(part)
            group.create_dataset(f"{number}/TransformType", (1,), dtype=text, data=[f"{kind}_float_3_3"])
            group.create_dataset(f"{number}/TransformFixedParameters", data=fixed)
            group.create_dataset(f"{number}/TransformParameters", data=values, compression="gzip", compression_opts=3)
    return write_bytes(path, buffer.getvalue())


def _of_displacement(given: Displacement) -> tuple[str, np.ndarray, np.ndarray]:
    """Kind, grid and values as ITK stores them."""
    size = np.linalg.norm(given.affine[:3, :3], axis=0)
    direction = _FLIP[:, None] * given.affine[:3, :3] / size
    fixed = np.concatenate([given.field.shape[:3], _FLIP * given.affine[:3, 3], size, direction.ravel()])
    values = np.ascontiguousarray((given.field * _FLIP).transpose(2, 1, 0, 3), dtype=np.float32).ravel()
    return "DisplacementFieldTransform", fixed.astype(np.float64), values


def _of_matrix(matrix: np.ndarray) -> tuple[str, np.ndarray, np.ndarray]:
    turned = np.diag([*_FLIP, 1.0]) @ matrix @ np.diag([*_FLIP, 1.0])
    values = np.concatenate([turned[:3, :3].ravel(), turned[:3, 3]])
    return "AffineTransform", np.zeros(3), values.astype(np.float32)
