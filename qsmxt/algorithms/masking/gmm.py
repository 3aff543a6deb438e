r"""Threshold between the two lowest classes of a Gaussian mixture.

.. math:: h(x) \approx \sum_k w_k\, N(x; \mu_k, \sigma_k^2), \qquad
    w_1 N(t; \mu_1, \sigma_1^2) = w_2 N(t; \mu_2, \sigma_2^2), \quad \mu_1 < t < \mu_2 ,

with h the histogram. Expectation maximisation starts at classes divided by Otsu's thresholds and runs to convergence,
but for at most ``iterations``; ``tolerance`` is the change of the shares that counts as none. Where the lowest of the
``classes`` and the next are equally likely is the threshold t. It finds the foot of the background where Otsu's
threshold, which seeks the middle, cuts into dark tissue.

Departure: 256 bins replace the voxels, so the cost does not depend on the size of the volume.

References
----------
Dempster et al. 1977 (doi:10.1111/j.2517-6161.1977.tb01600.x).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.algorithms.masking.histogram import above, counts, samples
from qsmxt.algorithms.masking.otsu import otsu_threshold
from qsmxt.geometry import Grid
from qsmxt.registry.methods import Cost, Progress, method, parameter


@dataclass(frozen=True)
class GMMParameters:
    """Parameters of :func:`gmm`."""

    classes: int = parameter(2, at_least=2, at_most=6, help="number of Gaussians")
    iterations: int = parameter(200, at_least=1, at_most=10000, help="largest number of iterations")
    tolerance: float = parameter(1e-6, at_least=0, help="change of the shares of the classes at which iteration stops")


def fit_mixture(
    number: np.ndarray,
    centre: np.ndarray,
    means: np.ndarray,
    iterations: int = 200,
    tolerance: float = 1e-6,
    progress: Progress | None = None,
) -> np.ndarray:
    """Weights, means and standard deviations ``(3, classes)``, ascending means, of a mixture fitted to a histogram."""
    spread = centre[-1] - centre[0]
    floor = (0.5 * spread / centre.size) ** 2
    mean = np.sort(means.astype(np.float64))
    nearest = np.argmin(np.abs(centre[:, None] - mean), axis=1)
    share = np.eye(mean.size)[nearest]
    share_before = np.zeros_like(share)
    for iteration in range(iterations):
        mass = np.maximum((number[:, None] * share).sum(0), 1e-12)
        mean = (number[:, None] * share * centre[:, None]).sum(0) / mass
        variance = (number[:, None] * share * (centre[:, None] - mean) ** 2).sum(0) / mass + floor
        weight = mass / mass.sum()
        exponent = np.log(weight) - 0.5 * np.log(variance) - 0.5 * (centre[:, None] - mean) ** 2 / variance
        share = np.exp(exponent - exponent.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        if progress:
            progress((iteration + 1) / iterations)
        if np.abs(share - share_before).max() < tolerance:
            break
        share_before = share
    order = np.argsort(mean)
    return np.stack([weight, mean, np.sqrt(variance)])[:, order]


def _initial_means(values: np.ndarray, classes: int) -> np.ndarray:
    """Means after repeated division, at Otsu's threshold, of the class with the largest sum of squares."""
    parts = [values]
    while len(parts) < classes:
        parts.sort(key=lambda part: part.var() * part.size)
        widest = parts.pop()
        threshold = otsu_threshold(widest, zeros=True)
        parts += [widest[widest < threshold], widest[widest >= threshold]]
    return np.array([part.mean() for part in parts])


def gmm_threshold(
    image: np.ndarray,
    classes: int = 2,
    iterations: int = 200,
    tolerance: float = 1e-6,
    progress: Progress | None = None,
) -> float:
    """Intensity where the lowest and the next class are equally likely."""
    values = samples(image)
    number, centre = counts(values, 256)
    first = _initial_means(values, classes)
    weight, mean, width = fit_mixture(number, centre, first, iterations, tolerance, progress)
    between = np.linspace(mean[0], mean[1], 2001)
    logs = np.log(weight[:2]) - np.log(width[:2]) - 0.5 * ((between[:, None] - mean[:2]) / width[:2]) ** 2
    return float(between[np.argmax(logs[:, 1] >= logs[:, 0])])


@method(
    stage="masking",
    key="gmm",
    title="Threshold by a Gaussian mixture",
    consumes=("mask_input",),
    produces=("mask",),
    parameters=GMMParameters,
    references=("dempster1977",),
    sentence="A mask was made by the threshold above the lowest of {classes} classes of a Gaussian mixture.",
    cost=Cost(bytes_per_voxel=25, threads=1, seconds_per_megavoxel=0.05),
)
def gmm(
    image: np.ndarray, grid: Grid, parameters: GMMParameters = GMMParameters(), *, progress: Progress | None = None
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
        See :class:`GMMParameters`.
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
    >>> from qsmxt.algorithms.masking.gmm import gmm
    >>> from qsmxt.phantom.example import phantom
    >>> head = phantom()
    >>> mask = gmm(head.mask_input, head.grid)
    >>> bool((mask == head.mask).all())
    True
    """
    grid.check("mask_input", image)
    threshold = gmm_threshold(image, parameters.classes, parameters.iterations, parameters.tolerance, progress)
    return above(image, threshold)
