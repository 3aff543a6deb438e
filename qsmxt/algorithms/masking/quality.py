r"""Where the phase can be trusted.

The phase quality Q (mean weight of the edges of a voxel, :func:`qsmxt.algorithms.unwrapping.weights`) falls from
near 1 in tissue to about 0.3 in air, and the fit quality q tells how well the echoes agree with one frequency. The
mask is

.. math:: M = \mathrm{largest}\big(\mathrm{open}(\{Q > f\, t_{Otsu}(Q)\} \cap \{q > q_{min}\})\big) ,

opened with a ball of ``opening``. Veins, bleeds, calcifications and the rim towards air drop out, which keeps them from
streaking into the rest.

References
----------
Stewart et al. 2022 (doi:10.1002/mrm.29048); Otsu 1979 (doi:10.1109/TSMC.1979.4310076).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms import morphology
from qsmxt.algorithms.masking.histogram import above
from qsmxt.algorithms.masking.otsu import otsu_threshold
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class QualityParameters:
    """Parameters of :func:`quality`."""

    fit: float = parameter(0.9, at_least=0, below=1, help="smallest fit quality, where there is one")
    factor: float = parameter(1.0, above=0, help="factor on Otsu's threshold of the phase quality")
    opening: float = parameter(1.0, unit="mm", at_least=0, help="radius of the opening")


@method(
    stage="masking",
    key="quality",
    title="Reliable phase",
    consumes=("phase_quality",),
    optional=("fit_quality",),
    produces=("mask",),
    parameters=QualityParameters,
    references=("stewart2022", "otsu1979"),
    sentence="Phase quality above {factor:g} times Otsu's threshold and fit quality above {fit:g} were asked for.",
    cost=Cost(bytes_per_voxel=12, seconds_per_megavoxel=0.2),
)
def quality(
    phase_quality: np.ndarray,
    grid: Grid,
    parameters: QualityParameters = QualityParameters(),
    *,
    progress: Progress | None = None,
    fit_quality: np.ndarray | None = None,
) -> np.ndarray:
    """Bool mask of the voxels whose phase is reliable.

    Parameters
    ----------
    phase_quality, fit_quality
        ``(x, y, z)`` in [0, 1]; the second may be absent (one echo).
    grid
        Geometry.
    parameters
        See :class:`QualityParameters`.

    Raises
    ------
    InputError
        If the phase quality is the same everywhere.
    """
    grid.check("phase_quality", phase_quality)
    mask = above(phase_quality, parameters.factor * otsu_threshold(phase_quality))
    if fit_quality is not None:
        grid.check("fit_quality", fit_quality)
        mask &= fit_quality > np.float32(parameters.fit)
    if parameters.opening > 0:
        mask = morphology.opening(mask, grid, max(parameters.opening, min(grid.voxel_size)))
    return morphology.largest_component(mask)
