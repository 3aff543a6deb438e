r"""Reference to labelled regions.

.. math:: \chi_{ref} = \chi - \bar\chi_R

with :math:`\bar\chi_R` the mean (ppm) over the voxels of the mask with one of the given labels, between the 1st and
99th percentile (:mod:`qsmxt.algorithms.referencing.offset`). Common choices: posterior limb of the internal capsule
(-0.060 +- 0.019 ppm relative to the whole brain), splenium (-0.008 +- 0.019 ppm).

Parameters
    ``labels``: those of the region R. ``percentiles``: between which voxels count.

References
----------
Straub et al. 2017 (doi:10.1002/mrm.26369).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.referencing.offset import checked_chi, offset_of, subtract
from qsmxt.errors import ParameterError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class RegionParameters:
    """Parameters of :func:`region`."""

    labels: tuple[int, ...] = parameter((), at_least=0, help="labels of the reference region; at least one")
    percentiles: tuple[float, float] = parameter(
        (1.0, 99.0), unit="%", at_least=0, at_most=100, help="percentiles between which voxels count"
    )


@method(
    stage="referencing",
    key="region",
    title="Labelled region",
    consumes=("chi", "mask", "labels"),
    produces=("chi", "reference_offset"),
    parameters=RegionParameters,
    references=("straub2017",),
    sentence="Susceptibility is given relative to the trimmed mean of the regions with labels {labels}.",
    cost=Cost(bytes_per_voxel=9, seconds_per_megavoxel=0.05),
)
def region(
    chi: np.ndarray,
    mask: np.ndarray,
    labels: np.ndarray,
    grid: Grid,
    parameters: RegionParameters = RegionParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Referenced susceptibility (ppm) and what was subtracted (ppm); see the module.

    Parameters
    ----------
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Where there is a map, bool ``(x, y, z)``.
    labels
        Anatomical labels, integer ``(x, y, z)``; what lies outside the mask does not count.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`RegionParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.
    reference_offset
        Mean of the region, ppm, float32 ``()``.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, the susceptibility has NaN or Inf in
        it, or no voxel of the mask has one of the ``labels``.
    ParameterError
        If no ``labels`` are given.

    Examples
    --------
    Sphere 1 of the phantom has 0.15 ppm:

    >>> from qsmxt.algorithms.referencing.region import RegionParameters, region
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi, offset = region(head.chi, head.mask, head.labels, head.grid, RegionParameters(labels=(1,)))
    >>> round(float(offset), 3), round(float(chi[head.labels == 1].max()), 3)
    (0.15, 0.0)
    """
    if not parameters.labels:
        raise ParameterError("referencing.region: parameter labels: expected at least one label, found none")
    grid.check("labels", labels)
    chi, mask = checked_chi(chi, mask, grid)
    chosen = np.isin(labels, parameters.labels) & mask
    wanted = ", ".join(str(label) for label in parameters.labels)
    return subtract(chi, mask, offset_of(chi, chosen, percentiles=parameters.percentiles, name=f"labels {wanted}"))
