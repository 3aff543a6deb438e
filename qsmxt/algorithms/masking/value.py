r"""Threshold at a given value, in the unit of the image or as a fraction of its range or maximum.

.. math:: M = \{ r : I(r) > t \}, \qquad t = \tau, \quad I_{min} + \tau\,(I_{max} - I_{min}) \quad\text{or}\quad
    \tau\,I_{max} ,

with :math:`\tau` the ``threshold`` and the formula by ``of``. No source: a plain comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.masking.histogram import above
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class ValueParameters:
    """Parameters of :func:`value`."""

    threshold: float = parameter(0.5, help="voxels above this belong to the mask; unit as 'of' says")
    of: str = parameter(
        "unit",
        choices=("unit", "range", "maximum"),
        help="the threshold is in the unit of the image, a fraction of its range, or a fraction of its maximum",
    )


@method(
    stage="masking",
    key="value",
    title="Fixed threshold",
    consumes=("mask_input",),
    produces=("mask",),
    parameters=ValueParameters,
    sentence="A mask was made by a threshold of {threshold:g} ({of}).",
    cost=Cost(bytes_per_voxel=2, threads=1, seconds_per_megavoxel=0.01),
)
def value(
    image: np.ndarray, grid: Grid, parameters: ValueParameters = ValueParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask of the voxels of ``image`` above the threshold; see the module.

    Parameters
    ----------
    image
        Image to look at (``mask_input``), arbitrary unit, float32 ``(x, y, z)``; what is not finite is outside the
        mask.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`ValueParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: where the image is above the threshold.

    Raises
    ------
    InputError
        If the shape is not that of the grid, or the image has no finite voxel and the threshold is a fraction.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.value import ValueParameters, value
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> mask = value(head.mask_input, head.grid, ValueParameters(threshold=0.3, of="maximum"))
    >>> bool((mask == head.mask).all())
    True
    """
    grid.check("mask_input", image)
    threshold = parameters.threshold
    if parameters.of != "unit":
        finite = image[np.isfinite(image)]
        if finite.size == 0:
            raise InputError("mask_input: expected finite voxels, found none")
        low = float(finite.min()) if parameters.of == "range" else 0.0
        threshold = low + threshold * (float(finite.max()) - low)
    return above(image, threshold)
