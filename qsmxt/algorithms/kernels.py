r"""Convolution kernels as half spectra: unit dipole, spherical mean, difference operators.

The relative field of a susceptibility distribution is :math:`f = d * \chi`. Three forms of the unit dipole:

``"continuous"``
    :math:`D(k) = 1/3 - (k\cdot b)^2 / |k|^2`, zero at the origin. Used by the inversions.
``"greens"``
    transform of :math:`d(r) = V\,(3 (r\cdot b)^2 - r^2)/(4\pi r^5)`, :math:`d(0) = 0`, with V the voxel volume. Exact
    for oblique fields and in padded forward models. Used by forward simulation and projection onto dipole fields.
``"discrete"``
    the ratio of central and second differences, consistent with finite-difference operators.

References
----------
Salomir 2003 (doi:10.1002/cmr.b.10083); Marques and Bowtell 2005 (doi:10.1002/cmr.b.20034); Jenkinson 2004
(doi:10.1002/mrm.20194).
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import fourier
from qsmxt.geometry import Grid

DIPOLE_FORMS = ("continuous", "greens", "discrete")


def dipole(grid: Grid, form: str = "continuous") -> np.ndarray:
    """Half spectrum of the unit dipole, float32, real.

    Parameters
    ----------
    grid
        Shape, voxel size (mm) and B0 direction.
    form
        One of ``"continuous"``, ``"greens"``, ``"discrete"``; see the module docstring.
    """
    if form == "greens":
        return _dipole_greens(grid)
    kx, ky, kz = fourier.frequencies(grid)
    bx, by, bz = (np.float32(b) for b in grid.b0_direction)
    if form == "continuous":
        along = kx * bx + ky * by + kz * bz
        square = kx * kx + ky * ky + kz * kz
        numerator = along * along
    elif form == "discrete":
        vx, vy, vz = grid.voxel_size
        angles = [np.float32(2 * np.pi * v) * k for k, v in zip((kx, ky, kz), (vx, vy, vz), strict=True)]
        sines = [np.sin(a) / np.float32(v) for a, v in zip(angles, (vx, vy, vz), strict=True)]
        seconds = [(2 - 2 * np.cos(a)) / np.float32(v * v) for a, v in zip(angles, (vx, vy, vz), strict=True)]
        square = seconds[0] + seconds[1] + seconds[2]
        numerator = bx * bx * seconds[0] + by * by * seconds[1] + bz * bz * seconds[2]
        cross = bx * by * sines[0] * sines[1] + bx * bz * sines[0] * sines[2] + by * bz * sines[1] * sines[2]
        numerator = numerator + 2 * cross
    else:
        raise ValueError(f"dipole form: expected one of {', '.join(DIPOLE_FORMS)}, found {form!r}")
    square[0, 0, 0] = 1.0
    result = np.float32(1 / 3) - numerator / square
    result[0, 0, 0] = 0.0
    return np.ascontiguousarray(result, dtype=np.float32)


def offsets(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance of every voxel from the first one along each axis, mm, periodic, shaped for broadcasting."""
    out = []
    for axis, (n, v) in enumerate(zip(grid.shape, grid.voxel_size, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = n
        out.append((np.fft.fftfreq(n) * n * v).astype(np.float32).reshape(shape))
    return out[0], out[1], out[2]


def _dipole_greens(grid: Grid) -> np.ndarray:
    x, y, z = offsets(grid)
    bx, by, bz = (np.float32(b) for b in grid.b0_direction)
    square = x * x + y * y + z * z
    square[0, 0, 0] = 1.0
    along = x * bx + y * by + z * bz
    volume = np.float32(grid.voxel_volume / (4 * np.pi))
    kernel = volume * (3 * along * along - square) / (square * square * np.sqrt(square))
    kernel[0, 0, 0] = 0.0
    return np.ascontiguousarray(fourier.forward(kernel).real)


def spherical_mean(grid: Grid, radius: float) -> np.ndarray:
    """Half spectrum of the mean over the voxels within ``radius`` (mm), float32, 1 at the origin."""
    x, y, z = offsets(grid)
    ball = (x * x + y * y + z * z <= np.float32(radius * radius * (1 + 1e-6))).astype(np.float32)
    ball /= ball.sum(dtype=np.float64)
    return np.ascontiguousarray(fourier.forward(ball).real)


def gaussian(grid: Grid, sigma: float | tuple[float, float, float]) -> np.ndarray:
    """Half spectrum of a Gaussian of standard deviation ``sigma`` (mm, one number or one per axis), 1 at the origin."""
    widths = sigma if isinstance(sigma, tuple) else (float(sigma),) * 3
    exponent = sum(
        (np.float32(2 * np.pi**2 * s * s) * k * k for k, s in zip(fourier.frequencies(grid), widths, strict=True)),
        start=np.float32(0),
    )
    return np.exp(-exponent).astype(np.float32)


def negative_laplacian(grid: Grid) -> np.ndarray:
    r"""Symbol of the periodic :math:`g^T g`, :math:`\sum_i (2 - 2\cos\theta_i)/v_i^2`, 1/mm^2, float32."""
    terms = [
        (2 - 2 * np.cos(2 * np.pi * v * k.astype(np.float64))) / (v * v)
        for k, v in zip(fourier.frequencies(grid), grid.voxel_size, strict=True)
    ]
    return np.ascontiguousarray(terms[0] + terms[1] + terms[2], dtype=np.float32)
