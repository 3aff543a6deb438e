r"""Mean of a cohort in space: mean of affine maps, inverse of a displacement, sharpness.

A template is unbiased when its points lie at the mean of where the scans have them. Of affine maps
:math:`A_i` from the template to the scans, M is the mean if

.. math:: \sum_i w_i \log (A_i M^{-1}) = 0 ,

found by Newton's iteration :math:`M \leftarrow \exp(\sum_i w_i \log (A_i M^{-1}))\, M` (Karcher mean in the group of
affine maps). With :math:`A_i M^{-1}` in place of :math:`A_i` the mean is the identity.

Of maps :math:`\varphi_i(x) = x + u_i(x)` the mean displacement is :math:`\bar u = \sum_i w_i u_i`. With
:math:`\psi = (\mathrm{id} + \bar u)^{-1}` the maps :math:`\varphi_i \circ \psi` have no mean displacement at all:
:math:`\sum_i w_i \varphi_i(\psi(y)) = y`. The inverse :math:`\psi(y) = y + v(y)` solves
:math:`v(y) = -\bar u(y + v(y))` by fixed-point iteration, which converges where :math:`|\nabla \bar u| < 1`; a mean
displacement, smooth and small, is far from that.

The usual update (Avants 2010, doi:10.1016/j.neuroimage.2009.09.062) averages the entries of the affine matrices and
moves the template by a quarter of :math:`-\bar u`, four times. The exact inverse does in one round what that
approaches over many, and because scans are brought through :math:`\varphi_i \circ \psi` in one interpolation, the mean
image is never itself resampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qsmxt.errors import InputError

#: Rounds of fixed-point iteration, and change at which it ends, voxels.
_ROUNDS, _SMALLEST = 100, 1e-5


def mean_affine(matrices: Sequence[np.ndarray], weights: Sequence[float] | None = None) -> np.ndarray:
    """Mean of 4 x 4 affine matrices.

    Raises
    ------
    InputError
        If there is none, or they are so far apart (half a turn, a mirror) that there is no mean.

    Examples
    --------
    >>> import numpy as np
    >>> twice = np.diag([2.0, 2.0, 2.0, 1.0])
    >>> np.round(mean_affine([twice, np.linalg.inv(twice)]), 12).tolist() == np.eye(4).tolist()
    True
    """
    from scipy.linalg import expm, logm

    if not len(matrices):
        raise InputError("affine maps: expected at least one, found none")
    share = np.full(len(matrices), 1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    share = share / share.sum()
    mean = np.array(matrices[0], dtype=np.float64)
    for _ in range(_ROUNDS):
        inverse = np.linalg.inv(mean)
        logs = [logm(np.asarray(matrix, dtype=np.float64) @ inverse) for matrix in matrices]
        if any(np.iscomplexobj(log) and np.abs(log.imag).max() > 1e-8 for log in logs):
            raise InputError("affine maps: expected ones with a mean, found scans half a turn or a mirror apart")
        step = sum(part * np.real(log) for part, log in zip(share, logs, strict=True))
        mean = expm(step) @ mean
        if np.abs(step).max() < 1e-12:
            break
    return np.asarray(mean)


def sampled(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Vectors ``(x, y, z, 3)`` interpolated at ``points`` ``(..., 3)``, voxels; beyond the edge the edge counts."""
    from scipy.ndimage import map_coordinates

    where = np.moveaxis(np.asarray(points, dtype=np.float64), -1, 0)
    parts = [map_coordinates(field[..., axis], where, order=1, mode="nearest") for axis in range(3)]
    return np.stack(parts, axis=-1)


def positions(shape: tuple[int, ...]) -> np.ndarray:
    """Index of every voxel, ``(x, y, z, 3)``, float64."""
    return np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), axis=-1)


def inverse_displacement(field: np.ndarray) -> np.ndarray:
    """Displacement of the inverse map.

    Parameters
    ----------
    field
        Displacement ``(x, y, z, 3)``, voxels.

    Returns
    -------
    inverse
        The same for the inverse map, float32.

    Raises
    ------
    InputError
        If the field folds space.
    """
    grid = positions(field.shape[:3])
    found = np.zeros(field.shape, dtype=np.float64)
    before = np.inf
    for _ in range(_ROUNDS):
        updated = -sampled(field, grid + found)
        change = float(np.abs(updated - found).max())
        found = updated
        if change < _SMALLEST:
            return found.astype(np.float32)
        if change > 10 * before:
            break
        before = min(before, change)
    if before > 0.1:
        raise InputError(f"mean displacement: expected one that can be inverted, found one that folds ({before:.2f})")
    return found.astype(np.float32)


def sharpness(volume: np.ndarray, mask: np.ndarray, voxel_size: tuple[float, float, float]) -> float:
    """Mean squared gradient over the mask relative to the variance there, 1/mm^2.

    Both at a scale of 1.5 mm or a voxel, so that noise counts little.
    """
    from scipy.ndimage import gaussian_filter

    if np.count_nonzero(mask) < 2:
        return 0.0
    scale = [max(1.0, 1.5 / size) for size in voxel_size]
    energy = np.zeros(volume.shape)
    for axis in range(3):
        if volume.shape[axis] > 1:
            order = [int(axis == other) for other in range(3)]
            energy += (gaussian_filter(volume.astype(np.float64), scale, order=order) / voxel_size[axis]) ** 2
    variance = float(gaussian_filter(volume.astype(np.float64), scale)[mask].var())
    return float(energy[mask].mean()) / variance if variance > 0 else 0.0


def sharpened(volume: np.ndarray, amount: float, scale: float = 1.0, mask: np.ndarray | None = None) -> np.ndarray:
    """Unsharp masking: the volume plus ``amount`` times what a Gaussian of ``scale`` voxels takes away from it.

    With ``mask`` the Gaussian takes its mean over voxels inside alone, so that the rim of a map that is 0 outside is
    not taken for an edge; the result is 0 outside.
    """
    from scipy.ndimage import gaussian_filter

    values = volume.astype(np.float32)
    if mask is None:
        smooth = gaussian_filter(values, scale) if amount else values
    else:
        values = np.where(mask, values, 0).astype(np.float32)
        weight = gaussian_filter(mask.astype(np.float32), scale)
        smooth = np.where(mask, gaussian_filter(values, scale) / np.maximum(weight, 1e-6), 0)
    out: np.ndarray = (values + np.float32(amount) * (values - smooth)).astype(np.float32)
    return out
