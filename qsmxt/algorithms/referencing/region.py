r"""Reference to labelled regions.

.. math:: \chi_{ref} = \chi - \bar\chi_R

with :math:`\bar\chi_R` the mean (ppm) over the voxels of the mask with one of the given labels, between the 1st and
99th percentile (:mod:`qsmxt.algorithms.referencing.offset`). Common choices: posterior limb of the internal capsule
(-0.060 +- 0.019 ppm relative to the whole brain), splenium (-0.008 +- 0.019 ppm).

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
    """``chi`` (ppm) less its trimmed mean in the labelled regions inside the mask, zero outside; and that mean."""
    if not parameters.labels:
        raise ParameterError("referencing.region: parameter labels: expected at least one label, found none")
    grid.check("labels", labels)
    chi, mask = checked_chi(chi, mask, grid)
    chosen = np.isin(labels, parameters.labels) & mask
    wanted = ", ".join(str(label) for label in parameters.labels)
    return subtract(chi, mask, offset_of(chi, chosen, percentiles=parameters.percentiles, name=f"labels {wanted}"))
