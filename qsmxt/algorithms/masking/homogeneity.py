r"""Correction of the inhomogeneity of the receive field by the intensity of the main tissue.

The field of view is cut into overlapping boxes of half width h at distances h. Within each, voxels within 10 % of the
90th percentile of the signal there are taken for the main tissue; a voxel that at least two boxes take is kept. Its
intensity, extrapolated by a masked Gaussian, is the bias:

.. math:: \beta_1 = \frac{G_{\sigma_1} * (I\,t)}{G_{\sigma_1} * t}, \qquad \beta = G_{\sigma_2} * \beta_1, \qquad
    \sigma_1 = \sigma\sqrt{1 - 0.7^2},\; \sigma_2 = 0.7\,\sigma .

Between the two, places where :math:`\beta_1` is below a quarter or above ten times its mean are replaced by three
times the mean and count 0.2. The result is :math:`I / \beta`, times the mean of :math:`\beta` over the main tissue.

The correction is for images from which masks are made and for susceptibility-weighted images. It must not be applied to
magnitudes that serve as weights (noise follows the measured magnitude), nor before relaxometry.

Departures from the published method
    Everything but the division is done on block means of about 3 mm; lengths are in mm.

Parameters
    ``sigma``: :math:`\sigma`, at most a tenth of the field of view. ``box``: h.

References
----------
Eckstein et al. 2021 (doi:10.1016/j.neuroimage.2021.118175).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.algorithms import parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.masking.resolution import block_means, blocks, coarse_grid, interpolate
from qsmxt.algorithms.signal import signal_mask
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Length of the blocks on which the bias is found, mm.
BLOCK = 3.0
#: Gaussians wider than this times the image are the same everywhere.
WIDEST = 8


@dataclass(frozen=True)
class HomogeneityParameters:
    """Parameters of :func:`homogeneity`."""

    sigma: float = parameter(
        7.0, unit="mm", above=0, at_most=100, help="smoothing of the bias; at most 10 % of the field of view"
    )
    box: float = parameter(15.0, unit="mm", above=0, at_most=200, help="half width and distance of the boxes")


@method(
    stage="masking",
    key="homogeneity",
    title="Inhomogeneity correction by box-wise main tissue",
    consumes=("combined_magnitude",),
    produces=("homogeneous_magnitude",),
    parameters=HomogeneityParameters,
    references=("eckstein2021",),
    sentence="Inhomogeneity of the magnitude was corrected with the intensity of the main tissue ({sigma:g} mm).",
    cost=Cost(bytes_per_voxel=40, seconds_per_megavoxel=0.05),
)
def homogeneity(
    image: np.ndarray,
    grid: Grid,
    parameters: HomogeneityParameters = HomogeneityParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Image with the bias divided out; see the module.

    Parameters
    ----------
    image
        Magnitude (``combined_magnitude``), arbitrary unit, float32 ``(x, y, z)``; what is not finite counts as zero.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`HomogeneityParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Magnitude freed from the bias, in the arbitrary unit of the image, float32 ``(x, y, z)``, inside and outside the
        object.

    Raises
    ------
    InputError
        If the shape is not that of the grid, or no voxel is positive.

    Examples
    --------
    A receive field that doubles from one side to the other:

    >>> import numpy as np
    >>> from qsmxt.algorithms.masking.homogeneity import homogeneity
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> receive = np.linspace(0.7, 1.4, 20, dtype=np.float32)[:, None, None]
    >>> image = head.combined_magnitude * receive
    >>> maps = image, homogeneity(image, head.grid)
    >>> [round(float(100 * m[head.mask].std() / m[head.mask].mean())) for m in maps]  # percent of variation
    [19, 6]
    """
    grid.check("combined_magnitude", image)
    image = np.asarray(image, dtype=np.float32)
    if not np.isfinite(image.sum()):
        image = np.nan_to_num(image, posinf=0.0, neginf=0.0)
    factors = blocks(grid, BLOCK)
    bias = coarse_bias(block_means(image, factors), coarse_grid(grid, factors), parameters)
    return image / interpolate(bias, factors, grid.shape)


def coarse_bias(image: np.ndarray, grid: Grid, parameters: HomogeneityParameters) -> np.ndarray:
    """The bias on a coarse grid, its mean over the main tissue 1, float32."""
    tissue = main_tissue(image, signal_mask(image, grid), grid, parameters.box)
    extent = [n * v for n, v in zip(grid.shape, grid.voxel_size, strict=True)]
    sigmas = [min(parameters.sigma, 0.1 * e) / v for e, v in zip(extent, grid.voxel_size, strict=True)]
    first = _masked_gaussian(image, tissue.astype(np.float32), [s * np.sqrt(1 - 0.7**2) for s in sigmas])
    mean = float(first[tissue].mean(dtype=np.float64))
    outlier = (first < mean / 4) | (first > 10 * mean)
    first[outlier] = 3 * mean
    bias = _masked_gaussian(first, np.where(outlier, np.float32(0.2), np.float32(1.0)), [0.7 * s for s in sigmas])
    return bias / np.float32(bias[tissue].mean(dtype=np.float64))


def main_tissue(image: np.ndarray, signal: np.ndarray, grid: Grid, box: float) -> np.ndarray:
    """Voxels that at least two boxes take for the brightest tissue; else the signal; if it is too thin, all above 0."""
    half = np.array([max(1, round(box / v)) for v in grid.voxel_size])
    votes = np.zeros(grid.shape, dtype=np.uint8)
    _vote(image, signal, half, votes)
    tissue = votes >= 2
    if not tissue.any():
        return signal if signal.any() else image > 0
    return tissue


@kernel
def _vote(image, signal, half, votes):
    nx, ny, nz = image.shape
    values = np.empty((2 * half[0] + 1) * (2 * half[1] + 1) * (2 * half[2] + 1), dtype=np.float32)
    for x in range(0, nx + half[0], half[0]):
        for y in range(0, ny + half[1], half[1]):
            for z in range(0, nz + half[2], half[2]):
                x0, x1 = max(0, x - half[0]), min(nx, x + half[0] + 1)
                y0, y1 = max(0, y - half[1]), min(ny, y + half[1] + 1)
                z0, z1 = max(0, z - half[2]), min(nz, z + half[2] + 1)
                count = 0
                for i in range(x0, x1):
                    for j in range(y0, y1):
                        for k in range(z0, z1):
                            if signal[i, j, k]:
                                values[count] = image[i, j, k]
                                count += 1
                if count < 10:
                    continue
                rank = int(0.9 * (count - 1))
                typical = np.partition(values[:count], rank)[rank]
                for i in range(x0, x1):
                    for j in range(y0, y1):
                        for k in range(z0, z1):
                            if signal[i, j, k] and abs(image[i, j, k] - typical) < np.float32(0.1) * typical:
                                votes[i, j, k] += 1


def _masked_gaussian(image: np.ndarray, weight: np.ndarray, sigmas: list[float]) -> np.ndarray:
    """Weighted Gaussian mean; where it reaches too little weight, ever wider ones extrapolate, at last the mean."""
    out = np.zeros_like(image)
    known = np.zeros(image.shape, dtype=bool)
    weighted = image * weight
    while not known.all():
        if all(s > WIDEST * n for n, s in zip(image.shape, sigmas, strict=True)):
            out[~known] = weighted.sum(dtype=np.float64) / weight.sum(dtype=np.float64)
            break
        matrices = [_smoothing(n, s) for n, s in zip(image.shape, sigmas, strict=True)]
        share, total = _smoothed(weight, matrices), _smoothed(weighted, matrices)
        new = ~known & (share > 1e-3)
        out[new] = total[new] / share[new]
        known |= new
        sigmas = [2 * max(s, 0.5) for s in sigmas]
    return out


def _smoothing(length: int, sigma: float) -> np.ndarray:
    """Gaussian of ``sigma`` voxels along an axis as a matrix, float32; the ends are repeated beyond them."""
    unit = np.eye(length, dtype=np.float32)
    return ndimage.gaussian_filter1d(unit, sigma, axis=0, mode="nearest", truncate=3.0)


def _smoothed(volume: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """``volume`` after the product with a matrix along every axis."""
    first, second, third = matrices
    out = np.empty_like(volume)
    parallel.run(_across_planes, volume.shape[1], np.ascontiguousarray(volume), first, out)
    parallel.run(_within_planes, volume.shape[0], out, second, np.ascontiguousarray(third.T))
    return out


@kernel
def _add_scaled(target, factor, row):
    for k in range(target.size):
        target[k] += factor * row[k]


@kernel
def _across_planes(start, stop, volume, matrix, out):
    for j in range(start, stop):
        for i in range(out.shape[0]):
            target = out[i, j]
            target[:] = 0
            for n in range(volume.shape[0]):
                if matrix[i, n] != 0:
                    _add_scaled(target, matrix[i, n], volume[n, j])


@kernel
def _within_planes(start, stop, volume, second, third):
    ny, nz = volume.shape[1:]
    plane = np.empty((ny, nz), dtype=np.float32)
    for i in range(start, stop):
        plane[:] = 0
        for j in range(ny):
            for n in range(ny):
                if second[j, n] != 0:
                    _add_scaled(plane[j], second[j, n], volume[i, n])
        volume[i] = 0
        for j in range(ny):
            for k in range(nz):
                if plane[j, k] != 0:
                    _add_scaled(volume[i, j], plane[j, k], third[k])
