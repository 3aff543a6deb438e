r"""Small phantoms with closed-form fields, for tests and examples.

Positions are in mm from the middle of the grid. Fields are relative, in ppm, with the Lorentz correction: a sphere
has no field inside.

Sphere of radius :math:`R` and susceptibility :math:`\chi` (Salomir 2003, doi:10.1002/cmr.b.10083):

.. math:: f = \frac{\chi R^3}{3}\,\frac{3\cos^2\theta - 1}{r^3}\ (r > R),\qquad f = 0\ (r < R)

Infinite cylinder of radius :math:`a` at the angle :math:`\theta` to B0 (Marques and Bowtell 2005,
doi:10.1002/cmr.b.20034):

.. math::

    f = \frac{\chi}{2}\Big(\cos^2\theta - \frac13\Big)\ (\rho < a),\qquad
    f = \frac{\chi}{2}\sin^2\theta\,\frac{a^2}{\rho^2}\cos 2\varphi\ (\rho > a)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

Point = tuple[float, float, float]
ORIGIN: Point = (0.0, 0.0, 0.0)


def positions(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates of the voxel centres (mm, float64) from the middle of the grid, shaped for broadcasting."""
    x, y, z = ((np.arange(n) - (n - 1) / 2) * v for n, v in zip(grid.shape, grid.voxel_size, strict=True))
    return x[:, None, None], y[None, :, None], z[None, None, :]


def ellipsoid(grid: Grid, radii: float | Point, centre: Point = ORIGIN) -> np.ndarray:
    """Bool volume: voxels whose centre lies within the ellipsoid (mm)."""
    half = (radii,) * 3 if isinstance(radii, (int, float)) else radii
    terms = [((p - c) / r) ** 2 for p, c, r in zip(positions(grid), centre, half, strict=True)]
    return terms[0] + terms[1] + terms[2] <= 1


def filling(grid: Grid, radius: float, centre: Point = ORIGIN, axis: int | None = None, samples: int = 4) -> np.ndarray:
    """Fraction of each voxel that a sphere fills, or an infinite cylinder along ``axis``; float32.

    ``samples`` points along each side of a voxel decide.
    """
    x = positions(grid)
    kept = [i for i in range(3) if i != axis]
    shifts = [((np.arange(samples) + 0.5) / samples - 0.5) * v for v in grid.voxel_size]
    out = np.zeros(grid.shape, dtype=np.float32)
    for shift in product(*(shifts[i] for i in kept)):
        square = sum((x[i] - centre[i] + s) ** 2 for i, s in zip(kept, shift, strict=True))
        out += square <= radius * radius
    out /= samples ** len(kept)
    return out


def sphere_field(grid: Grid, radius: float, chi: float = 1.0, centre: Point = ORIGIN) -> np.ndarray:
    """Field (ppm, float32) of a sphere of susceptibility ``chi`` (ppm); its centre may lie outside the grid.

    Examples
    --------
    At the pole of the sphere the field is two thirds of its susceptibility:

    >>> grid = Grid((3, 3, 21))
    >>> field = sphere_field(grid, radius=5.0, chi=0.3)
    >>> round(float(field[1, 1, 15]), 3), float(field[1, 1, 10])
    (0.2, 0.0)
    """
    x, y, z = (p - c for p, c in zip(positions(grid), centre, strict=True))
    square = x * x + y * y + z * z
    bx, by, bz = grid.b0_direction
    along = (x * bx + y * by + z * bz) ** 2
    outside = square > radius * radius * (1 - 1e-9)
    square = np.where(outside, square, 1.0)
    return np.where(outside, chi * radius**3 / 3 * (3 * along / square - 1) / square**1.5, 0).astype(np.float32)


def cylinder_field(grid: Grid, radius: float, chi: float = 1.0, axis: int = 2, centre: Point = ORIGIN) -> np.ndarray:
    """Field (ppm, float32) of an infinite cylinder along a voxel axis; its angle to B0 follows from the grid."""
    i, j = (a for a in range(3) if a != axis)
    where = positions(grid)
    u, v = where[i] - centre[i], where[j] - centre[j]
    bu, bv, along = grid.b0_direction[i], grid.b0_direction[j], grid.b0_direction[axis]
    square = u * u + v * v
    outside = square > radius * radius
    safe = np.where(outside, square, 1.0)
    far = chi / 2 * radius**2 / safe * (2 * (u * bu + v * bv) ** 2 / safe - bu * bu - bv * bv)
    field = np.where(outside, far, chi / 2 * (along * along - 1 / 3))
    return np.ascontiguousarray(np.broadcast_to(field, grid.shape), dtype=np.float32)


def external_spheres_field(grid: Grid, spheres: Sequence[tuple[Point, float, float]]) -> np.ndarray:
    """Summed field (ppm, float32) of ``(centre in mm, radius in mm, chi in ppm)``: harmonic away from the spheres."""
    field = np.zeros(grid.shape, dtype=np.float32)
    for centre, radius, chi in spheres:
        field += sphere_field(grid, radius, chi, centre)
    return field


def harmonic_fields(grid: Grid) -> dict[str, np.ndarray]:
    """Solid harmonics of degree 1 to 3, coordinates in units of 100 mm, float32: fields without sources."""
    x, y, z = (p / 100 for p in positions(grid))
    fields = {
        "x": x,
        "x2-y2": x * x - y * y,
        "xyz": x * y * z,
        "2z3-3z(x2+y2)": 2 * z**3 - 3 * z * (x * x + y * y),
    }
    return {n: np.ascontiguousarray(np.broadcast_to(f, grid.shape), dtype=np.float32) for n, f in fields.items()}


def multi_echo(
    field: np.ndarray,
    echo_times: Sequence[float],
    field_strength: float,
    *,
    magnitude: np.ndarray | float = 1.0,
    r2star: np.ndarray | float = 0.0,
    phase_offset: np.ndarray | float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Wrapped phase (rad, in [-pi, pi)) and magnitude, float32 ``(echo, x, y, z)``, of a gradient echo.

    .. math:: S_e = M\,e^{-R_2^* T_e}\,\exp i(\varphi_0 + 2\pi\bar\gamma B_0 f T_e) + \text{noise}

    Parameters
    ----------
    field
        Relative field, ppm.
    echo_times, field_strength
        s and T.
    magnitude, r2star, phase_offset
        Arbitrary unit, 1/s, rad; numbers or volumes.
    noise
        Standard deviation of the real and of the imaginary part.
    seed
        Of the noise.
    """
    times = [float(t) for t in echo_times]
    if not times or min(times) < 0:
        raise InputError(f"echo_times: expected at least one time in s, found {tuple(echo_times)}")
    rng = np.random.default_rng(seed)
    signal = np.empty((len(times), *field.shape), dtype=np.complex128)
    for echo, time in enumerate(times):
        phase = phase_offset + rad_per_ppm(field_strength, time) * field.astype(np.float64)
        signal[echo] = magnitude * np.exp(-time * np.asarray(r2star)) * np.exp(1j * phase)
    if noise:
        signal += noise * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    phase = np.angle(signal).astype(np.float32)
    phase[phase >= np.float32(np.pi)] = -np.float32(np.pi)
    return phase, np.abs(signal).astype(np.float32)
