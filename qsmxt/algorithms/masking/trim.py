r"""Trimming: dark voxels that the outside reaches leave the mask.

The surface of a brain extraction is smooth; the bone and the air of the sinuses that it encloses are dark. A voxel
is dark if

.. math:: I(r) < a\, \bar I(r), \qquad \bar I = \frac{G_\sigma * (I s)}{G_\sigma * s} ,

with s the voxels of the mask brighter than a times their median and :math:`\sigma` = 15 mm, so that a smooth
receive field does not matter. Dark voxels connected with the outside through dark voxels are removed. Dark voxels
inside (veins, bleeds, calcifications) stay. Parameters: ``level`` is a, and what is closer than ``margin`` to the dark
outside goes as well. No source: the rule of this program.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from qsmxt.algorithms import morphology
from qsmxt.algorithms.cropping import box_of
from qsmxt.algorithms.masking.flood import reached
from qsmxt.algorithms.masking.resolution import block_means, blocks, coarse_grid, interpolate
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Standard deviation of the smoothing of the reference intensity, and length of the blocks it is computed on, mm.
SIGMA, BLOCK = 15.0, 5.0


@dataclass(frozen=True)
class TrimParameters:
    """Parameters of :func:`trim`."""

    level: float = parameter(
        0.25, above=0, below=1, help="voxels darker than this fraction of the tissue around them are dark"
    )
    margin: float = parameter(
        1.0, unit="mm", at_least=0, at_most=20, help="voxels this close to the dark outside are removed as well"
    )


@method(
    stage="masking",
    key="trim",
    title="Trimming of dark borders",
    consumes=("mask", "mask_input"),
    produces=("mask",),
    parameters=TrimParameters,
    sentence="Border voxels darker than {level:g} of the tissue around them were removed.",
    cost=Cost(bytes_per_voxel=15.5, seconds_per_megavoxel=0.05),
)
def trim(
    mask: np.ndarray,
    image: np.ndarray,
    grid: Grid,
    parameters: TrimParameters = TrimParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Bool mask within ``mask``, dark borders removed; see the module.

    Parameters
    ----------
    mask
        Mask to change, bool ``(x, y, z)``.
    image
        The image that the mask was made from (``mask_input``), arbitrary unit, float32 ``(x, y, z)``; what is not
        finite counts as zero.
    grid
        Shape and voxel size (mm).
    parameters
        See :class:`TrimParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``, within ``mask``; it may be empty.

    Raises
    ------
    InputError
        If a shape is not that of the grid.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.dilate import DilateParameters, dilate
    >>> from qsmxt.algorithms.masking.trim import TrimParameters, trim
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> wide = dilate(head.mask, head.grid, DilateParameters(radius=4))  # with two layers of air
    >>> mask = trim(wide, head.mask_input, head.grid, TrimParameters(margin=0))
    >>> bool((mask == head.mask).all())
    True
    """
    grid.check("mask", mask)
    grid.check("mask_input", image)
    out = mask.copy()
    if not mask.any():
        return out
    reach = [int(np.ceil(parameters.margin / v)) + 1 for v in grid.voxel_size]
    box = box_of(mask, reach)
    part, values = mask[box], np.nan_to_num(image[box].astype(np.float32, copy=False))
    reference = local_intensity(part, values, grid.with_shape(part.shape), parameters.level)
    reference *= np.float32(parameters.level)
    dark = values < reference
    dark &= ~part | reached(part, dark)
    dark = within_margin(dark, grid, parameters.margin)
    out[box] &= ~dark
    return out


def local_intensity(mask: np.ndarray, image: np.ndarray, grid: Grid, level: float) -> np.ndarray:
    """Smoothed intensity of the voxels of ``mask`` brighter than ``level`` times their median, float32."""
    median = float(np.median(image[mask][:: max(1, int(mask.sum()) // 200_000)]))
    tissue = (mask & (image > level * median)).astype(np.float32)
    share, total, factors = smoothed_blocks(tissue, image, grid, SIGMA, 6.0)
    return interpolate(total / np.maximum(share, np.float32(1e-8)), factors, grid.shape)


def smoothed_blocks(
    weight: np.ndarray, image: np.ndarray, grid: Grid, sigma: float, truncate: float
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Block means of ``weight`` and of it times ``image``, smoothed by a Gaussian of ``sigma`` (mm); voxels of a block.

    The Gaussian ends at ``truncate`` times ``sigma``, and beyond the edge of the volume is nothing.
    """
    factors = blocks(grid, BLOCK)
    widths = [sigma / v for v in coarse_grid(grid, factors).voxel_size]
    share, total = (
        ndimage.gaussian_filter(block_means(v, factors), widths, mode="constant", truncate=truncate)
        for v in (weight, weight * image)
    )
    return share, total, factors


def within_margin(dark: np.ndarray, grid: Grid, margin: float) -> np.ndarray:
    """``dark`` and the voxels whose centre is within ``margin`` (mm) of its surface, half a voxel off its centres."""
    if margin <= 0:
        return dark
    first, second, third = (v * margin / (margin + 0.5 * v) for v in grid.voxel_size)
    return morphology.dilate(dark, Grid(dark.shape, (first, second, third)), margin)
