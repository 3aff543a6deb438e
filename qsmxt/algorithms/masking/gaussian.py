r"""Threshold where the histogram falls furthest below a Gaussian.

The normalised histogram h of the image (bin width by the rule of Freedman and Diaconis,
:math:`2\,\mathrm{IQR}\, n^{-1/3}`) is compared with the normal density g of the same mean and standard deviation, also
normalised over the bins. An image of object and background has two peaks, and between them is a valley where g - h is
largest. The threshold is a ``factor`` times the centre of that bin,

.. math:: t = \arg\max_x\, \big(g(x) - h(x)\big) .

References
----------
Balan et al. 2012 (doi:10.1016/j.compbiomed.2012.01.004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.masking.histogram import above, counts, samples
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter

#: Limits to the number of bins.
BINS = (16, 4096)


@dataclass(frozen=True)
class GaussianParameters:
    """Parameters of :func:`gaussian`."""

    factor: float = parameter(1.0, above=0, help="factor on the threshold; above 1 is stricter")


def gaussian_threshold(image: np.ndarray) -> float:
    """Centre of the bin where the histogram is furthest below the normal density."""
    values = samples(image)
    quarter, threequarter = np.quantile(values, (0.25, 0.75))
    width = 2 * (threequarter - quarter) * values.size ** (-1 / 3)
    span = np.ptp(values)
    bins = int(np.clip(np.ceil(span / width) if width > 0 else BINS[0], *BINS))
    number, centre = counts(values, bins)
    density = np.exp(-0.5 * ((centre - values.mean()) / values.std()) ** 2)
    return float(centre[np.argmax(density / density.sum() - number / number.sum())])


@method(
    stage="masking",
    key="gaussian",
    title="Threshold at the valley below a Gaussian",
    consumes=("mask_input",),
    produces=("mask",),
    parameters=GaussianParameters,
    references=("balan2012",),
    sentence="A mask was made by the threshold at which the histogram lies furthest below a Gaussian.",
    cost=Cost(bytes_per_voxel=17, threads=1, seconds_per_megavoxel=0.05),
)
def gaussian(
    image: np.ndarray,
    grid: Grid,
    parameters: GaussianParameters = GaussianParameters(),
    *,
    progress: Progress | None = None,
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
        See :class:`GaussianParameters`.
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
    >>> from qsmxt.algorithms.masking.gaussian import gaussian
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> mask = gaussian(head.mask_input, head.grid)
    >>> bool((mask == head.mask).all())
    True
    """
    grid.check("mask_input", image)
    return above(image, parameters.factor * gaussian_threshold(image))
