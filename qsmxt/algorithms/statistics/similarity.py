r"""How well two images show the same thing: mutual information and the overlap of masks.

With the joint histogram :math:`p_{ij}` of two images over a mask and its marginals,

.. math:: I = \sum_{ij} p_{ij} \ln \frac{p_{ij}}{p_i p_j}, \qquad
          C = \sqrt{1 - e^{-2 I}} .

:math:`C`, the informational coefficient of correlation, equals the absolute correlation coefficient for jointly normal
images, 0 for independent and 1 for dependent ones, whatever the contrast. Bins hold equal numbers of voxels, so that
I depends neither on the scale nor on any monotone change of the intensities. Chance alone gives I about
:math:`(b-1)^2 / 2n` for b bins and n voxels, which is subtracted.
"""

from __future__ import annotations

import numpy as np

from qsmxt.errors import InputError


def mutual_information(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None = None, bins: int = 24) -> float:
    """Mutual information of two images over ``mask``, nat, at least 0.

    Parameters
    ----------
    first, second
        Volumes of the same shape.
    mask
        Voxels to compare.
    bins
        Bins of equal population for each image.

    Raises
    ------
    InputError
        If there are fewer voxels than bins.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=100_000)
    >>> y = 0.8 * x + 0.6 * np.random.default_rng(1).normal(size=100_000)
    >>> round(correlation(mutual_information(x, -y)), 2)
    0.79
    """
    if first.shape != second.shape or (mask is not None and mask.shape != first.shape):
        raise InputError(f"images: expected equal shapes, found {first.shape} and {second.shape}")
    chosen = np.ones(first.shape, dtype=bool) if mask is None else mask
    a, b = first[chosen], second[chosen]
    if a.size < bins:
        raise InputError(f"mask: expected at least {bins} voxels to compare, found {a.size}")
    joint = np.bincount(_ranks(a, bins) * bins + _ranks(b, bins), minlength=bins * bins).reshape(bins, bins)
    p = joint / a.size
    rows, columns = p.sum(axis=1, keepdims=True), p.sum(axis=0, keepdims=True)
    filled = p > 0
    information = float((p[filled] * np.log(p[filled] / (rows * columns)[filled])).sum())
    levels = (np.count_nonzero(rows) - 1) * (np.count_nonzero(columns) - 1)
    return max(0.0, information - levels / (2 * a.size))


def correlation(information: float) -> float:
    """Informational coefficient of correlation, 0 to 1."""
    return float(np.sqrt(1 - np.exp(-2 * information)))


def _ranks(values: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each value; bins hold equal numbers, equal values share one."""
    edges = np.quantile(values.astype(np.float64), np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")
