r"""The dipole of a voxel and of all its periodic images, smooth away from the voxel.

A fit of sources outside a mask needs fields that are harmonic in it. The transform of a dipole that is cut off at half
the box is not: the plane on which one image takes over from the next runs through the mask, and there the derivative
jumps. Nor is the sampled :math:`1/3 - (k\cdot b)^2/k^2`, whose cut at the border of k-space rings. The sum over all
images is found as Ewald did, by splitting with a Gaussian of width :math:`\sigma`,

.. math::

    D = \Big(\tfrac13 - \frac{(k \cdot b)^2}{k^2}\Big)\, e^{-2\pi^2\sigma^2 k^2}
      + F\Big[d(r) - \frac{V (3 (r\cdot b)^2 - r^2)}{4\pi r^5}\, h\Big(\frac{r}{\sqrt2\,\sigma}\Big)\Big], \qquad
    h(u) = \operatorname{erf} u - \frac{2}{\sqrt\pi}\Big(u + \frac{2u^3}{3}\Big) e^{-u^2} ,

with :math:`d` the field of a uniformly magnetised voxel. The first term has vanished at the border of k-space, the
second at a few :math:`\sigma`, so both are sampled exactly. No padding is needed for the field to be right.
"""

from __future__ import annotations

import numpy as np
import scipy.special

from qsmxt.algorithms import fourier, kernels
from qsmxt.geometry import Grid

#: Width of the Gaussian in units of the longest voxel edge: at the border of k-space it has fallen to 3e-9.
WIDTH = 2.0
#: Distance in units of the width at which the near part has vanished.
REACH = 6.0


def periodic_dipole(grid: Grid) -> np.ndarray:
    """Half spectrum of the unit dipole on the periodic box of ``grid``, float32, real, zero at the origin.

    Parameters
    ----------
    grid
        Shape, voxel size (mm) and B0 direction. Boxes narrower than 24 of the longest edges get a narrower Gaussian.
    """
    longest = max(grid.voxel_size)
    narrowest = min(n * v for n, v in zip(grid.shape, grid.voxel_size, strict=True))
    sigma = min(WIDTH * longest, max(narrowest / (2 * REACH), 0.25 * longest))
    spectrum = kernels.dipole(grid) * kernels.gaussian(grid, sigma)
    near = []
    for n, v in zip(grid.shape, grid.voxel_size, strict=True):
        reach = min((n - 1) // 2, int(np.ceil(REACH * sigma / v)))
        near.append(np.arange(-reach, reach + 1))
    size, direction = np.array(grid.voxel_size), np.array(grid.b0_direction)
    part = kernels.voxel_dipole(near, size, direction) - _smeared(near, size, direction, sigma)
    volume = np.zeros(grid.shape, dtype=np.float32)
    volume[np.ix_(*near)] = part
    spectrum += fourier.forward(volume).real
    spectrum[0, 0, 0] = 0
    return spectrum


def _smeared(near: list[np.ndarray], size: np.ndarray, direction: np.ndarray, sigma: float) -> np.ndarray:
    """Field of one voxel's magnetisation smeared to a Gaussian, at offsets ``near`` (voxels), float64."""
    x, y, z = np.meshgrid(*[n * v for n, v in zip(near, size, strict=True)], indexing="ij", sparse=True)
    square = x * x + y * y + z * z
    centre = square == 0
    square = np.where(centre, 1.0, square)
    along = x * direction[0] + y * direction[1] + z * direction[2]
    u = np.sqrt(square) / (np.sqrt(2) * sigma)
    screen = scipy.special.erf(u) - 2 / np.sqrt(np.pi) * (u + 2 * u**3 / 3) * np.exp(-u * u)
    field = np.prod(size) * (3 * along * along - square) / (4 * np.pi * square**2.5) * screen
    return np.where(centre, 0.0, field)
