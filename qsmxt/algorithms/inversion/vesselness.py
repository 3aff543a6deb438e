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

import numpy as np

from qsmxt.algorithms import fourier, kernels, parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.geometry import Grid


def vesselness(image: np.ndarray, mask: np.ndarray, grid: Grid, widths: tuple[float, ...]) -> np.ndarray:
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
    """
    level = np.float32(image[mask].mean(dtype=np.float64))
    spectrum = fourier.forward(np.where(mask, image - level, np.float32(0)).astype(np.float32))
    k = [np.float32(2 * np.pi) * f for f in fourier.frequencies(grid)]
    best = np.zeros(grid.shape, dtype=np.float32)
    for width in widths:
        smooth = spectrum * (kernels.gaussian(grid, float(width)) * np.float32(-width * width))
        hessian = [
            fourier.inverse(smooth * (k[a] * k[b]), grid.shape)
            for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
        ]
        strength = np.empty(grid.shape, dtype=np.float32)
        shape = np.empty(grid.shape, dtype=np.float32)
        parallel.run(_tube, grid.shape[0], *hessian, mask, shape, strength)
        limit = strength[mask].max() / 2
        if limit > 0:
            np.maximum(best, shape * (1 - np.exp(-(strength**2) / np.float32(2 * limit**2))), out=best)
    return best


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
