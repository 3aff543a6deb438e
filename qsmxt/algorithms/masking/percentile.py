r"""Threshold at a percentile of the finite voxels.

.. math:: M = \{ r : I(r) > P_p(I) \} ,

with :math:`P_p` the value that a share of ``percent`` of all finite voxels, zeros included, does not exceed. It suits
images of which is known how much of the field of view the object fills. No source: the definition of a percentile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.masking.histogram import above
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class PercentileParameters:
    """Parameters of :func:`percentile`."""

    percent: float = parameter(75.0, unit="%", at_least=0, below=100, help="share of all voxels that is left out")


@method(
    stage="masking",
    key="percentile",
    title="Threshold at a percentile",
    consumes=("mask_input",),
    produces=("mask",),
    parameters=PercentileParameters,
    sentence="A mask was made of the voxels above the {percent:g}th percentile.",
    cost=Cost(bytes_per_voxel=8, threads=1, seconds_per_megavoxel=0.05),
)
def percentile(
    image: np.ndarray,
    grid: Grid,
    parameters: PercentileParameters = PercentileParameters(),
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Bool mask of the voxels of ``image`` above the percentile of all finite voxels, zeros included; see the module.

    Parameters
    ----------
    image
        Image to look at (``mask_input``), arbitrary unit, float32 ``(x, y, z)``; what is not finite is outside the
        mask.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`PercentileParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: where the image is above the threshold.

    Raises
    ------
    InputError
        If the shape is not that of the grid, or the image has no finite voxel.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.percentile import PercentileParameters, percentile
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> outside = 100 * (1 - head.mask.mean())  # percent of all voxels
    >>> mask = percentile(head.mask_input, head.grid, PercentileParameters(percent=outside))
    >>> bool((mask == head.mask).all())
    True
    """
    grid.check("mask_input", image)
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        raise InputError("mask_input: expected finite voxels, found none")
    return above(image, float(np.percentile(finite, parameters.percent)))
