r"""COSMOS: susceptibility from local fields of one head in several orientations, by least squares.

.. math::

    \min_\chi \sum_o \int \big|D_o(k)\, X(k) - F_o(k)\big|^2 \, w_o\, dk
    \;\Longrightarrow\; X = \frac{\sum_o w_o D_o F_o}{\sum_o w_o D_o^2}, \qquad
    D_o(k) \approx \frac13 - \frac{(k \cdot b_o)^2}{|k|^2},

:math:`F_o` being the spectrum of the local field (ppm) of orientation o with the direction :math:`b_o` of B0 in the
axes of the common grid. The dipoles are those of a voxel ("greens" in :mod:`qsmxt.algorithms.kernels`), because most
directions are oblique: on a digital head the continuous form had an error of 29 %, this one of 9 %.

The zero cones of different orientations meet only in the origin and in few lines, so three orientations some 35 degrees
apart need no prior. Where the denominator is small none the less it is replaced by ``floor``; the numerator is kept, so
such frequencies are damped, not amplified.

The fields are known inside the mask only. The first map is therefore refined: outside the mask the fields are replaced
by those that the map predicts, and the map is made anew, ``repetitions`` times.

Call shape
    Several fields do not fit into one array of the registry, so this is a plain function of arrays: ``fields``
    ``(orientation, x, y, z)`` on a common grid, and ``directions`` ``(orientation, 3)``. The direction of the grid
    itself does not matter. Fields must have been registered before; a rotation by the matrix R (from the axes of an
    image to those of the common grid) turns its B0 direction b into R b.

References
----------
Liu et al. 2009 (doi:10.1002/mrm.21828).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.cropping import Crop
from qsmxt.algorithms.domain import PADDING, checked_mask, masked, scale
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Progress, parameter


@dataclass(frozen=True)
class COSMOSParameters:
    """Parameters of :func:`cosmos`."""

    floor: float = parameter(
        1e-3, at_least=0, below=0.4, help="least mean square of the dipoles by which a frequency is divided"
    )
    repetitions: int = parameter(5, at_least=0, help="how often the fields outside the mask are filled in")


def cosmos(
    fields: np.ndarray,
    directions: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: COSMOSParameters = COSMOSParameters(),
    *,
    weights: np.ndarray | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Susceptibility, ppm, float32 ``(x, y, z)``, its mean in the mask 0, 0 outside the mask.

    Parameters
    ----------
    fields
        Local fields on the common grid, ppm, ``(orientation, x, y, z)``, at least two.
    directions
        B0 in the axes of the common grid for every field, ``(orientation, 3)``.
    mask
        Voxels in which all fields are known.
    grid
        Geometry of the common grid.
    parameters
        See :class:`COSMOSParameters`.
    weights
        Trust in every field, for instance its inverse noise variance; equal if not given.
    progress
        Called with the fraction done.

    Raises
    ------
    InputError
        If there are fewer than two fields, shapes do not fit, two directions are parallel, or the mask is empty.
    """
    fields = np.asarray(fields)
    axes = check_directions(fields, directions)
    mask = checked_mask(mask, grid)
    crop = Crop.around(mask, grid, padding=PADDING)
    inside = crop.extract(mask)
    shares = np.full(len(axes), 1 / len(axes)) if weights is None else _check_weights(weights, len(axes))
    dipoles = [kernels.dipole(dataclasses.replace(crop.grid, b0_direction=tuple(b)), "greens") for b in axes]
    data = [masked(f"fields[{o}]", field, mask, crop) for o, field in enumerate(fields)]
    denominator = sum(np.float32(w) * d * d for w, d in zip(shares, dipoles, strict=True))
    denominator = np.maximum(denominator, np.float32(max(parameters.floor, 1e-6)))
    chi = np.zeros(crop.grid.shape, dtype=np.float32)
    for repetition in range(parameters.repetitions + 1):
        total = np.zeros(denominator.shape, dtype=np.complex64)
        known = fourier.forward(np.where(inside, chi, np.float32(0))) if repetition else None
        for field, dipole, share in zip(data, dipoles, shares, strict=True):
            filled = field if known is None else _filled(field, inside, known, dipole, crop.grid)
            spectrum = fourier.forward(filled)
            scale(spectrum, np.float32(share) * dipole)
            total += spectrum
        scale(total, 1 / denominator)
        chi = fourier.inverse(total, crop.grid.shape)
        if progress:
            progress((repetition + 1) / (parameters.repetitions + 1))
    chi -= np.float32(chi[inside].mean(dtype=np.float64))
    return crop.restore(np.where(inside, chi, np.float32(0)))


def check_directions(fields: np.ndarray, directions: np.ndarray, *, at_least: int = 2) -> np.ndarray:
    """Unit vectors ``(orientation, 3)``; :class:`InputError` unless they fit the fields and differ."""
    axes = np.asarray(directions, dtype=np.float64)
    if fields.ndim != 4 or len(fields) < at_least:
        raise InputError(
            f"fields: expected (orientation, x, y, z) with at least {at_least} orientations, found shape {fields.shape}"
        )
    if axes.shape != (len(fields), 3) or not np.isfinite(axes).all() or not np.linalg.norm(axes, axis=1).all():
        raise InputError(f"directions: expected {len(fields)} non-zero 3-vectors, found shape {axes.shape}")
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    cosines = np.abs(axes @ axes.T)[~np.eye(len(axes), dtype=bool)]
    if cosines.min() > np.cos(np.radians(1)):
        raise InputError("directions: expected directions of B0 that differ, found all within 1 degree")
    return axes


def _check_weights(weights: np.ndarray, count: int) -> np.ndarray:
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (count,) or not np.isfinite(values).all() or values.min() < 0 or values.sum() == 0:
        raise InputError(f"weights: expected {count} non-negative numbers, found {values.tolist()}")
    return values / values.sum()


def _filled(field: np.ndarray, inside: np.ndarray, chi: np.ndarray, dipole: np.ndarray, grid: Grid) -> np.ndarray:
    """The field inside, and outside the mask what the map predicts."""
    spectrum = chi.copy()
    scale(spectrum, dipole)
    return np.where(inside, field, fourier.inverse(spectrum, grid.shape))
