r"""Otsu's threshold.

Of the thresholds that separate two bins of the histogram, the one with the largest variance between the two classes,

.. math:: t = \arg\max_t\; \omega_0 \omega_1 (\mu_0 - \mu_1)^2 ,

with the shares :math:`\omega` and means :math:`\mu` of the voxels below and above. Exact zeros and values that are
not finite do not count. If several thresholds are equally good (empty bins between the classes), the middle one is
taken.

Parameters
    ``factor``: the mask is what lies above it times t. ``bins``: of the histogram.

References
----------
Otsu 1979 (doi:10.1109/TSMC.1979.4310076).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.masking.histogram import above, counts, samples
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class OtsuParameters:
    """Parameters of :func:`otsu`."""

    factor: float = parameter(1.0, above=0, help="factor on the threshold; above 1 is stricter")
    bins: int = parameter(256, at_least=2, at_most=65536, help="bins of the histogram")


def otsu_threshold(image: np.ndarray, bins: int = 256, *, zeros: bool = False) -> float:
    """Otsu's threshold in the unit of ``image``; ``zeros`` makes exact zeros count."""
    number, centre = counts(samples(image, zeros=zeros), bins)
    below = np.cumsum(number)[:-1]
    total, moment = number.sum(), (number * centre).sum()
    first = np.cumsum(number * centre)[:-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (moment * below - total * first) ** 2 / (below * (total - below))
    variance[~np.isfinite(variance)] = -1
    best = np.flatnonzero(variance >= variance.max() * (1 - 1e-12))
    return float(0.5 * (centre[best[0]] + centre[best[-1] + 1]))


@method(
    stage="masking",
    key="otsu",
    title="Otsu's threshold",
    consumes=("mask_input",),
    produces=("mask",),
    parameters=OtsuParameters,
    references=("otsu1979",),
    sentence="A mask was made by Otsu's threshold times {factor:g}.",
    cost=Cost(bytes_per_voxel=17, threads=1, seconds_per_megavoxel=0.05),
)
def otsu(
    image: np.ndarray, grid: Grid, parameters: OtsuParameters = OtsuParameters(), *, progress: Progress | None = None
) -> np.ndarray:
    """Bool mask of the voxels of ``image`` above ``factor`` times Otsu's threshold; see the module.

    Parameters
    ----------
    image
        Image to look at (``mask_input``), arbitrary unit, float32 ``(x, y, z)``; what is not finite is outside the
        mask.
    grid
        Shape; the voxel size does not matter.
    parameters
        See :class:`OtsuParameters`.
    progress
        Called with the part of the work that is done, from 0 to 1.

    Returns
    -------
    numpy.ndarray
        Bool ``(x, y, z)``: where the image is above the threshold.

    Raises
    ------
    InputError
        If the shape is not that of the grid, or the image has no contrast.

    Examples
    --------
    >>> from qsmxt.algorithms.masking.otsu import otsu
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> mask = otsu(head.mask_input, head.grid)
    >>> bool((mask == head.mask).all())
    True
    """
    grid.check("mask_input", image)
    return above(image, parameters.factor * otsu_threshold(image, parameters.bins))
