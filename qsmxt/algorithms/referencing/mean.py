r"""Reference to the whole mask.

.. math:: \chi_{ref} = \chi - \bar\chi

with :math:`\bar\chi` the mean (ppm) over the mask between the 1st and 99th percentile
(:mod:`qsmxt.algorithms.referencing.offset`). The most repeatable reference, but it moves with age and disease.

References
----------
QSM Consensus Organization Committee et al. 2024 (doi:10.1002/mrm.30006).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.referencing.offset import checked_chi, offset_of, subtract
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class MeanParameters:
    """Parameters of :func:`mean`."""

    percentiles: tuple[float, float] = parameter(
        (1.0, 99.0), unit="%", at_least=0, at_most=100, help="percentiles between which voxels count"
    )


@method(
    stage="referencing",
    key="mean",
    title="Mean of the mask",
    consumes=("chi", "mask"),
    produces=("chi", "reference_offset"),
    parameters=MeanParameters,
    references=("qsmconsensus2024",),
    sentence="Susceptibility is given relative to the trimmed mean of the whole mask.",
    cost=Cost(bytes_per_voxel=10, seconds_per_megavoxel=0.05),
)
def mean(
    chi: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    parameters: MeanParameters = MeanParameters(),
    *,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``chi`` (ppm) less its trimmed mean in the mask, zero outside; and that mean.

    >>> grid = Grid((1, 1, 3))
    >>> chi, offset = mean(np.array([[[1.0, 2.0, 3.0]]]), np.ones(grid.shape, bool), grid, MeanParameters((0, 100)))
    >>> chi.ravel().tolist(), float(offset)
    ([-1.0, 0.0, 1.0], 2.0)
    """
    chi, mask = checked_chi(chi, mask, grid)
    return subtract(chi, mask, offset_of(chi, mask, percentiles=parameters.percentiles))
