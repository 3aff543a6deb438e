r"""Convolution kernels as half spectra: unit dipole, spherical mean, difference operators.

The relative field of a susceptibility distribution is :math:`f = d * \chi`. Three forms of the unit dipole:

``"continuous"``
    :math:`D(k) = 1/3 - (k\cdot b)^2 / |k|^2`, zero at the origin. Used by the inversions.
``"greens"``
    transform of the field of one uniformly magnetised voxel at the centres of the others, less the Lorentz term: far
    away :math:`V\,(3 (r\cdot b)^2 - r^2)/(4\pi r^5)` with V the voxel volume. Within six voxel edges it is the sum over
    the eight corners of :math:`\pm\arctan(xy/zr)/4\pi` (and :math:`\pm\mathrm{arsinh}` for oblique fields), beyond it
    the expansion to fourth order. Sampling the point dipole instead is wrong by a factor of up to four at the
    neighbours of 1 x 1 x 3 mm voxels. Exact for oblique fields and in padded forward models; used by forward simulation
    and projection onto dipole fields.
``"discrete"``
    the ratio of central and second differences, consistent with finite-difference operators.

References
----------
Salomir 2003 (doi:10.1002/cmr.b.10083); Marques and Bowtell 2005 (doi:10.1002/cmr.b.20034); Jenkinson 2004
(doi:10.1002/mrm.20194).
"""

from __future__ import annotations

import numpy as np

from qsmxt.algorithms import fourier, parallel
from qsmxt.algorithms.compiled import kernel
from qsmxt.geometry import Grid

DIPOLE_FORMS = ("continuous", "greens", "discrete")

#: Distance, in units of the longest voxel edge, within which the "greens" dipole is integrated over the voxel exactly.
NEAR_FIELD = 6.0


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
    if form == "continuous":
        return _dipole_continuous(grid)
    if form == "discrete":
        return _dipole_discrete(grid)
    raise ValueError(f"dipole form: expected one of {', '.join(DIPOLE_FORMS)}, found {form!r}")


def _dipole_continuous(grid: Grid) -> np.ndarray:
    frequencies = [k.ravel() for k in fourier.frequencies(grid)]
    mixed = [_without_nyquist(k, n) for k, n in zip(frequencies, grid.shape, strict=True)]
    out = np.empty([k.size for k in frequencies], dtype=np.float32)
    b = np.array(grid.b0_direction, dtype=np.float32)
    parallel.run(_ratio, grid.shape[0], *frequencies, *mixed, b, out)
    out[0, 0, 0] = 0.0
    return out


def _dipole_discrete(grid: Grid) -> np.ndarray:
    frequencies, (vx, vy, vz) = fourier.frequencies(grid), grid.voxel_size
    bx, by, bz = (np.float32(b) for b in grid.b0_direction)
    angles = [np.float32(2 * np.pi * v) * k for k, v in zip(frequencies, (vx, vy, vz), strict=True)]
    sines = [np.sin(a) / np.float32(v) for a, v in zip(angles, (vx, vy, vz), strict=True)]
    seconds = [(2 - 2 * np.cos(a)) / np.float32(v * v) for a, v in zip(angles, (vx, vy, vz), strict=True)]
    square = seconds[0] + seconds[1] + seconds[2]
    numerator = bx * bx * seconds[0] + by * by * seconds[1] + bz * bz * seconds[2]
    cross = bx * by * sines[0] * sines[1] + bx * bz * sines[0] * sines[2] + by * bz * sines[1] * sines[2]
    numerator = numerator + 2 * cross
    square[0, 0, 0] = 1.0
    result = np.float32(1 / 3) - numerator / square
    result[0, 0, 0] = 0.0
    return np.ascontiguousarray(result, dtype=np.float32)


def _without_nyquist(k: np.ndarray, length: int) -> np.ndarray:
    """``k`` with zero at half the sampling rate, whose sign is ambiguous: the mean of both signs in products."""
    if length % 2:
        return k
    k = k.copy()
    k[length // 2] = 0
    return k


def offsets(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance of every voxel from the first one along each axis, mm, periodic, shaped for broadcasting."""
    out = []
    for axis, (n, v) in enumerate(zip(grid.shape, grid.voxel_size, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = n
        out.append((np.fft.fftfreq(n) * n * v).astype(np.float32).reshape(shape))
    return out[0], out[1], out[2]


def _dipole_greens(grid: Grid) -> np.ndarray:
    x, y, z = (axis.ravel().astype(np.float64) for axis in offsets(grid))
    size = np.array(grid.voxel_size)
    direction = np.array(grid.b0_direction)
    volume = np.empty(grid.shape, dtype=np.float32)
    parallel.run(_far_dipole, grid.shape[0], x, y, z, size, direction, volume)
    reach = [
        min((n - 1) // 2, int(np.ceil(NEAR_FIELD * max(grid.voxel_size) / v)))
        for n, v in zip(grid.shape, grid.voxel_size, strict=True)
    ]
    near = [np.arange(-m, m + 1) for m in reach]
    volume[np.ix_(*near)] = voxel_dipole(near, size, direction)
    return np.ascontiguousarray(fourier.forward(volume).real)


def voxel_dipole(near: list[np.ndarray], size: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Field of a uniformly magnetised voxel at voxel centres, by sums over its eight corners, less the Lorentz term.

    ``near`` holds the offsets of the centres along each axis in voxels, an odd number of consecutive integers around 0;
    ``size`` is the voxel size and ``direction`` the unit vector of B0. float64.
    """
    edges = [np.append(n - 0.5, n[-1] + 0.5) * v for n, v in zip(near, size, strict=True)]
    corners = np.meshgrid(*edges, indexing="ij", sparse=True)
    radius = np.sqrt(sum(c * c for c in corners))
    potential = np.zeros(radius.shape)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        if direction[i]:
            potential -= direction[i] ** 2 * np.arctan(corners[j] * corners[k] / (corners[i] * radius))
        if direction[j] * direction[k]:
            sheet = np.arcsinh(corners[i] / np.sqrt(corners[j] ** 2 + corners[k] ** 2))
            potential += 2 * direction[j] * direction[k] * sheet
    for axis in range(3):
        potential = np.diff(potential, axis=axis)
    potential /= 4 * np.pi
    centre = tuple(n.size // 2 for n in near)
    potential[centre] += 1 / 3
    return potential


@kernel(fastmath=False)
def _ratio(start, stop, kx, ky, kz, cx, cy, cz, b, out):
    """1/3 less the square of k along b over the square of k; in mixed products of components of k those of c count."""
    third, two = np.float32(1 / 3), np.float32(2)
    for i in range(start, stop):
        x, along_x = kx[i], b[0] * kx[i]
        for j in range(ky.size):
            y, along_y = ky[j], b[1] * ky[j]
            part, along = x * x + y * y, along_x * along_x + along_y * along_y
            xy, xz, yz = (two * (b[0] * b[1]) * cx[i]) * cy[j], two * (b[0] * b[2]) * cx[i], two * (b[1] * b[2]) * cy[j]
            for k in range(kz.size):
                z, along_z = kz[k], b[2] * kz[k]
                numerator = along + along_z * along_z + xy + xz * cz[k] + yz * cz[k]
                out[i, j, k] = third - numerator / (part + z * z)


@kernel
def _far_dipole(start, stop, x, y, z, size, direction, out):
    """Point dipole and the next term of the expansion of a voxel, which vanishes for cubes."""
    volume = size[0] * size[1] * size[2] / (4 * np.pi)
    qx, qy, qz = size[0] ** 2 / 24, size[1] ** 2 / 24, size[2] ** 2 / 24
    bx, by, bz = direction[0], direction[1], direction[2]
    trace = qx + qy + qz
    along_trace = qx * bx * bx + qy * by * by + qz * bz * bz
    for i in range(start, stop):
        for j in range(y.size):
            for k in range(z.size):
                square = x[i] * x[i] + y[j] * y[j] + z[k] * z[k] + 1e-30
                s = x[i] * bx + y[j] * by + z[k] * bz
                moment = qx * x[i] * x[i] + qy * y[j] * y[j] + qz * z[k] * z[k]
                mixed = qx * bx * x[i] + qy * by * y[j] + qz * bz * z[k]
                inverse = 1 / square
                value = 3 * s * s * inverse - 1
                value += 105 * s * s * moment * inverse**3
                value -= 15 * (moment + trace * s * s + 4 * s * mixed) * inverse**2
                value += 3 * (trace + 2 * along_trace) * inverse
                out[i, j, k] = volume * value * inverse / np.sqrt(square)


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
