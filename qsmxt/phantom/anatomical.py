"""The T1-weighted scan of a digital head, taken after the head has moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsmxt.phantom import acquisition
from qsmxt.phantom.anatomy import Coordinates, paint
from qsmxt.phantom.atlas import nuclei
from qsmxt.phantom.deformation import Deformation
from qsmxt.phantom.head import HeadSettings
from qsmxt.phantom.voxels import block_mean, brain_mask, dominant_tissue


@dataclass
class AnatomicalScan:
    """A T1-weighted volume and its truth.

    Attributes
    ----------
    volume, affine
        Signal (white matter about 1000) and voxel-to-RAS matrix, mm; the axes are those of the scanner.
    labels, nuclei, brain
        Tissue (uint8), nuclei of each side (int16), brain mask, on the same grid.
    to_gre
        4 x 4: scanner coordinates (mm) of a point in this scan to those of the same tissue in the gradient echo.
    """

    volume: np.ndarray
    affine: np.ndarray
    labels: np.ndarray
    nuclei: np.ndarray
    brain: np.ndarray
    to_gre: np.ndarray


def motion(rotation: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """4 x 4 matrix of turns about x, then y, then z (degrees), followed by a shift (mm)."""
    out = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(rotation)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        out[:3, :3] = turn @ out[:3, :3]
    out[:3, 3] = translation
    return out


def simulate_anatomical(
    settings: HeadSettings, voxel_size: tuple[float, float, float], to_gre: np.ndarray | None = None
) -> AnatomicalScan:
    """T1-weighted scan of the head of ``settings``.

    Parameters
    ----------
    settings
        Anatomy, tilt, field of view and seed; its voxel size does not matter.
    voxel_size
        mm.
    to_gre
        See :class:`AnatomicalScan`; ``None`` for a head that did not move.

    Examples
    --------
    >>> scan = simulate_anatomical(HeadSettings(), (8.0, 8.0, 8.0))
    >>> bool(scan.volume[scan.labels == 8].mean() > 1.2 * scan.volume[scan.labels == 9].mean())
    True
    """
    to_gre = np.eye(4) if to_gre is None else to_gre
    own = dataclasses.replace(settings, voxel_size=voxel_size, tilt=0.0)
    axes = settings.affine[:3, :3] / np.array(settings.voxel_size)  # of the gradient echo in the scanner
    subject = settings.subject or Deformation.identity()
    placed = subject.after(axes.T @ to_gre[:3, :3], axes.T @ to_gre[:3, 3])
    veins, texture, _ = own.streams
    classes, inside = paint(Coordinates(own.fine_shape, own.spacing, placed), veins, haemorrhage=own.haemorrhage != 0)
    pattern = acquisition.texture(own.fine_shape, own.spacing, texture)
    signal = block_mean(acquisition.properties(classes, pattern, own)["t1w"], own.factors)
    labels, _ = dominant_tissue(classes, own.factors)
    x, y, z = acquisition.normalised(own.shape)
    signal *= np.exp(np.float32(-0.15) * ((x + 0.1) ** 2 + (y - 0.2) ** 2 + (z + 0.1) ** 2))
    return AnatomicalScan(
        volume=acquisition.t1_weighted(signal, np.random.default_rng([settings.seed, 1])),
        affine=own.affine,
        labels=labels,
        nuclei=nuclei(labels, voxel_size, placed),
        brain=brain_mask(block_mean(inside, own.factors)),
        to_gre=to_gre,
    )
