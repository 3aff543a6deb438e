r"""Reference to the whole mask.

.. math:: \chi_{ref} = \chi - \bar\chi

with :math:`\bar\chi` the mean (ppm) over the mask between the 1st and 99th percentile
(:mod:`qsmxt.algorithms.referencing.offset`). The most repeatable reference, but it moves with age and disease.

Parameters
    ``percentiles``: between which voxels count.

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
    """Referenced susceptibility (ppm) and what was subtracted (ppm); see the module.

    Parameters
    ----------
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``; outside the mask it does not matter.
    mask
        Where there is a map, bool ``(x, y, z)``.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`MeanParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    chi
        Susceptibility, ppm, float32 ``(x, y, z)``; zero outside the mask.
    reference_offset
        Mean of the mask, ppm, float32 ``()``.

    Raises
    ------
    InputError
        If a shape is not that of the grid, the mask is empty or not of 0 and 1, the susceptibility has NaN or Inf in
        it.

    Examples
    --------
    >>> import numpy as np
    >>> from qsmxt.algorithms.referencing.mean import MeanParameters, mean
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> chi, offset = mean(head.chi + 0.03, head.mask, head.grid, MeanParameters(percentiles=(0, 100)))
    >>> bool(np.isclose(offset, 0.03 + head.chi[head.mask].mean())), bool(abs(chi[head.mask].mean()) < 1e-6)
    (True, True)
    """
    chi, mask = checked_chi(chi, mask, grid)
    return subtract(chi, mask, offset_of(chi, mask, percentiles=parameters.percentiles))
