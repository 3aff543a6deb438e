r"""Reference to cerebrospinal fluid.

.. math:: \chi_{ref} = \chi - \bar\chi_{CSF}

with :math:`\bar\chi_{CSF}` the mean (ppm) over the CSF of the ventricles between the 1st and 99th percentile
(:mod:`qsmxt.algorithms.referencing.offset`). CSF is stable with age and disease (0.010 +- 0.014 ppm relative to the
whole brain), but the region is small and often streaked by the choroid plexus.

Parameters
    ``percentiles``: between which voxels count.

References
----------
Straub et al. 2017 (doi:10.1002/mrm.26369); Dimov et al. 2022 (doi:10.1111/jon.12923).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.domain import checked_mask
from qsmxt.algorithms.referencing.offset import checked_chi, offset_of, subtract
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class CSFParameters:
    """Parameters of :func:`csf`."""

    percentiles: tuple[float, float] = parameter(
        (1.0, 99.0), unit="%", at_least=0, at_most=100, help="percentiles between which voxels count"
    )


@method(
    stage="referencing",
    key="csf",
    title="Cerebrospinal fluid",
    consumes=("chi", "mask", "csf_mask"),
    produces=("chi", "reference_offset"),
    parameters=CSFParameters,
    references=("straub2017",),
    sentence="Susceptibility is given relative to the trimmed mean of the cerebrospinal fluid of the ventricles.",
    cost=Cost(bytes_per_voxel=9, seconds_per_megavoxel=0.05),
)
def csf(
    chi: np.ndarray,
    mask: np.ndarray,
    csf_mask: np.ndarray,
    grid: Grid,
    parameters: CSFParameters = CSFParameters(),
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
    csf_mask
        Cerebrospinal fluid of the ventricles, bool ``(x, y, z)``; what lies outside the mask does not count.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`CSFParameters`.
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
        it, or the CSF is empty or has no voxel in the mask.

    Examples
    --------
    The fluid of the phantom has no susceptibility:

    >>> from qsmxt.algorithms.metrics import nrmse
    >>> from qsmxt.algorithms.referencing.csf import csf
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi, offset = csf(head.chi + 0.03, head.mask, head.csf_mask, head.grid)
    >>> round(float(offset), 3), round(float(abs(chi - head.chi)[head.mask].max()), 3)
    (0.03, 0.0)
    """
    chi, mask = checked_chi(chi, mask, grid)
    region = checked_mask(csf_mask, grid, "csf_mask") & mask
    return subtract(chi, mask, offset_of(chi, region, percentiles=parameters.percentiles, name="csf_mask"))
