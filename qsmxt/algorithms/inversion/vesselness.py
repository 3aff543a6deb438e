r"""Vesselness: how much the surroundings of a voxel look like a dark tube (Frangi filter).

The Hessian of the image, smoothed with a Gaussian of width :math:`\sigma` and scaled by :math:`\sigma^2`, has
eigenvalues :math:`|\lambda_1| \le |\lambda_2| \le |\lambda_3|`. A dark tube has :math:`\lambda_1 \approx 0` and
:math:`\lambda_2, \lambda_3 > 0`:

.. math:: V_\sigma = \left(1 - e^{-R_A^2/2\alpha^2}\right) e^{-R_B^2/2\beta^2}\left(1 - e^{-S^2/2c^2}\right), \quad
    R_A = \frac{|\lambda_2|}{|\lambda_3|},\; R_B = \frac{|\lambda_1|}{\sqrt{|\lambda_2\lambda_3|}},\;
    S = \sqrt{\textstyle\sum\lambda_i^2},

:math:`\alpha = \beta = 1/2`, c half the largest S in the mask; the result is the maximum over the widths.

References
----------
Frangi et al. 1998 (doi:10.1007/BFb0056195).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.compiled import kernel
from qsmxt.algorithms.engine import HOST, Engine
from qsmxt.geometry import Grid


def vesselness(
    image: np.ndarray, mask: np.ndarray, grid: Grid, widths: tuple[float, ...], engine: Engine = HOST
) -> Any:
    """Vesselness of dark tubes, 0 to 1, zero outside the mask.

    Parameters
    ----------
    image
        Float32 volume; only its values in the mask count.
    mask
        Bool volume.
    grid
        Sampling; the volume should be padded.
    widths
        Radii of the tubes (standard deviations of the Gaussian), mm.
    engine
        Where it is computed.
    """
    level = np.float32(image[mask].mean(dtype=np.float64))
    xp, inside = engine.xp, engine.send(mask)
    spectrum = engine.forward(engine.send(np.where(mask, image - level, np.float32(0)).astype(np.float32)))
    k = [np.float32(2 * np.pi) * f for f in fourier.frequencies(grid)]
    best, strength, shape = (engine.zeros(grid.shape) for _ in range(3))
    for width in widths:
        smooth = spectrum * engine.send(kernels.gaussian(grid, float(width)) * np.float32(-width * width))
        hessian = [
            engine.inverse(smooth * engine.send(k[a] * k[b]), grid.shape)
            for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
        ]
        engine.run(_tube, _tube_form, grid.shape[0], *hessian, inside, shape, strength)
        del smooth, hessian
        limit = np.float32(float(xp.max(strength[inside]))) / np.float32(2)
        if limit > 0:
            strength *= strength
            strength /= -float(np.float32(2 * limit**2))
            found = 1 - xp.exp(strength)
            found *= shape
            best = xp.maximum(best, found)
    return best


def _tube_form(xp: Any, *volumes: Any) -> None:
    """:func:`_tube` on whole arrays."""
    *hessian, mask, shape, strength = volumes
    a, b, c, d, e, f = (xp.astype(part, xp.float64) for part in hessian)
    mean = (a + b + c) / 3
    a, b, c = a - mean, b - mean, c - mean
    p = xp.sqrt((a * a + b * b + c * c + 2 * (d * d + e * e + f * f)) / 6)
    curved = mask & (p > 0)
    determinant = a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)
    cosine = determinant / (2 * xp.where(curved, p, xp.ones_like(p)) ** 3)
    angle = xp.acos(xp.clip(cosine, -1.0, 1.0)) / 3
    large = mean + 2 * p * xp.cos(angle)
    small = mean + 2 * p * xp.cos(angle + 2 * math.pi / 3)
    ordered = [large, 3 * mean - large - small, small]
    for i, j in ((0, 1), (1, 2), (0, 1)):  # by magnitude
        one, other = ordered[i], ordered[j]
        swap = xp.abs(one) < xp.abs(other)
        ordered[i], ordered[j] = xp.where(swap, other, one), xp.where(swap, one, other)
    large, middle, small = ordered
    nothing = xp.zeros_like(p)
    size = xp.sqrt(large * large + middle * middle + small * small)
    strength[...] = xp.astype(xp.where(curved, size, nothing), xp.float32)
    dark = curved & (large > 0) & (middle > 0)
    large, middle = (xp.where(dark, value, xp.ones_like(p)) for value in (large, middle))
    tube = (1 - xp.exp(-2 * (middle / large) ** 2)) * xp.exp(-2 * small * small / (middle * large))
    shape[...] = xp.astype(xp.where(dark, tube, nothing), xp.float32)


@kernel
def _tube(start, stop, xx, yy, zz, xy, xz, yz, mask, shape, strength):
    """Shape factor and strength from the eigenvalues of a symmetric matrix in closed form."""
    for i in range(start, stop):
        for j in range(mask.shape[1]):
            for k in range(mask.shape[2]):
                shape[i, j, k] = 0
                strength[i, j, k] = 0
                if not mask[i, j, k]:
                    continue
                a, b, c = np.float64(xx[i, j, k]), np.float64(yy[i, j, k]), np.float64(zz[i, j, k])
                d, e, f = np.float64(xy[i, j, k]), np.float64(xz[i, j, k]), np.float64(yz[i, j, k])
                mean = (a + b + c) / 3
                p = np.sqrt(((a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2 + 2 * (d * d + e * e + f * f)) / 6)
                if p == 0:
                    continue
                determinant = (a - mean) * ((b - mean) * (c - mean) - f * f)
                determinant += -d * (d * (c - mean) - f * e) + e * (d * f - (b - mean) * e)
                angle = np.arccos(min(1.0, max(-1.0, determinant / (2 * p**3)))) / 3
                large = mean + 2 * p * np.cos(angle)
                small = mean + 2 * p * np.cos(angle + 2 * np.pi / 3)
                middle = 3 * mean - large - small
                # by magnitude
                if abs(large) < abs(middle):
                    large, middle = middle, large
                if abs(middle) < abs(small):
                    middle, small = small, middle
                if abs(large) < abs(middle):
                    large, middle = middle, large
                strength[i, j, k] = np.sqrt(large * large + middle * middle + small * small)
                if large > 0 and middle > 0:
                    sheet = (middle / large) ** 2
                    blob = small * small / (middle * large)
                    shape[i, j, k] = (1 - np.exp(-2 * sheet)) * np.exp(-2 * blob)
