"""Convolution kernels against the analytic fields of spheres, cylinders and voxels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels
from qsmxt.geometry import Grid

TILTED = (0.3, -0.4, 0.866)


def _sphere(n: int, voxel: tuple[float, float, float], radius: float, fine: int = 4) -> np.ndarray:
    """Share of every voxel that lies in a sphere at the centre of the first n^3 voxels."""
    axes = []
    for v in voxel:
        points = (np.arange(n * fine) + 0.5) / fine * v - n * v / 2
        axes.append(points)
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    inside = x * x + y * y + z * z <= radius * radius
    return inside.reshape(n, fine, n, fine, n, fine).mean(axis=(1, 3, 5)).astype(np.float32)


def _field(chi: np.ndarray, grid: Grid, form: str) -> np.ndarray:
    """Field on the grid, computed on one of twice the size."""
    wide = grid.with_shape(tuple(2 * n for n in grid.shape))
    padded = np.zeros(wide.shape, dtype=np.float32)
    box = tuple(slice(n) for n in grid.shape)
    padded[box] = chi
    return fourier.filtered(padded, kernels.dipole(wide, form))[box]


def _outside(grid: Grid, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Analytic field of a unit sphere, distance from its centre, cosine to B0."""
    axes = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(grid.shape, grid.voxel_size, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    r = np.sqrt(x * x + y * y + z * z)
    cosine = (x * grid.b0_direction[0] + y * grid.b0_direction[1] + z * grid.b0_direction[2]) / np.maximum(r, 1e-9)
    return radius**3 / 3 * (3 * cosine**2 - 1) / np.maximum(r, 1e-9) ** 3, r, cosine


#: Error outside, standard deviation inside (radius of 8 voxels).
SPHERE_LIMITS = {
    ("continuous", (0, 0, 1)): (0.008, 4e-3),
    ("continuous", TILTED): (0.06, 2.5e-2),
    ("greens", (0, 0, 1)): (0.004, 2e-3),
    ("greens", TILTED): (0.004, 2e-3),
    ("discrete", (0, 0, 1)): (0.012, 4e-3),
    ("discrete", TILTED): (0.012, 4e-3),
}


@pytest.mark.parametrize(("form", "b0"), SPHERE_LIMITS)
def test_field_of_a_sphere(form, b0):
    grid = Grid((48, 48, 48), (1.0, 1.0, 1.0), b0)
    chi = _sphere(48, grid.voxel_size, 8.0)
    radius = (chi.sum(dtype=np.float64) * 3 / (4 * np.pi)) ** (1 / 3)
    field = _field(chi, grid, form)
    theory, r, _ = _outside(grid, radius)
    shell = (r > 10) & (r < 22)
    error = np.linalg.norm((field - theory)[shell]) / np.linalg.norm(theory[shell])
    limit, spread = SPHERE_LIMITS[form, b0]
    assert error < limit
    core = r < 6
    assert field[core].std() < spread
    assert abs(field[core].mean()) < 1e-3


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 3.0), (0.8, 1.0, 2.5)])
@pytest.mark.parametrize("b0", [(0, 0, 1), (1, 0, 0), TILTED])
def test_greens_field_of_a_sphere_in_anisotropic_voxels(voxel, b0):
    """Partial volume and uniform voxels blur the source twice, which is what is left of the error."""
    n = (48, 48, 24)
    grid = Grid(n, voxel, b0)
    fine = 4
    axes = [(np.arange(m * fine) + 0.5) / fine * v - m * v / 2 for m, v in zip(n, voxel, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    radius = 8.0
    inside = x * x + y * y + z * z <= radius * radius
    chi = inside.reshape(n[0], fine, n[1], fine, n[2], fine).mean(axis=(1, 3, 5)).astype(np.float32)
    radius = (chi.sum(dtype=np.float64) * grid.voxel_volume * 3 / (4 * np.pi)) ** (1 / 3)
    field = _field(chi, grid, "greens")
    theory, r, _ = _outside(grid, radius)
    shell = (r > 13) & (r < 19)
    error = np.linalg.norm((field - theory)[shell]) / np.linalg.norm(theory[shell])
    assert error < 0.04


@pytest.mark.parametrize(
    ("voxel", "b0"), [((1, 1, 1), (0, 0, 1)), ((1, 1, 3), (0, 0.5, 0.866)), ((0.5, 0.7, 3), TILTED)]
)
def test_greens_dipole_is_the_field_of_a_uniform_voxel(voxel, b0):
    grid = Grid((32, 32, 32), voxel, b0)
    image = fourier.inverse(kernels.dipole(grid, "greens").astype(np.complex64), grid.shape)
    points = (np.arange(24) + 0.5) / 24 - 0.5
    x, y, z = np.meshgrid(points, points, points, indexing="ij")
    b = np.array(grid.b0_direction)
    for offset in [(1, 0, 0), (0, 1, 2), (1, 1, 1), (2, -1, 0), (3, 0, 2), (9, 1, 0), (-2, 0, 8)]:
        p = [(o - d) * v for o, d, v in zip(offset, (x, y, z), voxel, strict=True)]
        square = p[0] ** 2 + p[1] ** 2 + p[2] ** 2
        along = p[0] * b[0] + p[1] * b[1] + p[2] * b[2]
        wanted = np.mean(np.prod(voxel) * (3 * along**2 - square) / (4 * np.pi * square**2.5))
        assert image[offset] == pytest.approx(wanted, rel=5e-3, abs=3e-6)


@pytest.mark.parametrize("degrees", [90.0, 54.7356, 30.0, 0.0])
def test_field_of_an_infinite_cylinder(degrees):
    """A cylinder along the periodic first axis, B0 at an angle to it."""
    angle = np.radians(degrees)
    n, radius, fine = 192, 10.0, 4
    grid = Grid((2, n, n), (1.0, 1.0, 1.0), (np.cos(angle), np.sin(angle), 0.0))
    points = (np.arange(n * fine) + 0.5) / fine - n / 2
    y, z = np.meshgrid(points, points, indexing="ij", sparse=True)
    share = (y * y + z * z <= radius * radius).reshape(n, fine, n, fine).mean(axis=(1, 3))
    chi = np.repeat(share[None].astype(np.float32), 2, axis=0)
    field = fourier.filtered(chi, kernels.dipole(grid, "discrete"))[0]
    y, z = np.meshgrid(np.arange(n) - (n - 1) / 2, np.arange(n) - (n - 1) / 2, indexing="ij")
    rho = np.hypot(y, z)
    # without k = 0 the field has no mean: the box of area n^2 takes 1/3 - mean of it
    mean = share.sum() / n**2 * (np.cos(angle) ** 2 - 1 / 3) / 2
    inside = field[rho < 7].mean() + mean
    assert inside == pytest.approx((np.cos(angle) ** 2 - 1 / 3) / 2, abs=4e-3)
    shell = (rho > 12) & (rho < 40)
    theory = np.sin(angle) ** 2 / 2 * radius**2 / rho**2 * ((y / rho) ** 2 - (z / rho) ** 2)
    error = field[shell] - theory[shell]
    assert np.std(error) < 0.01 * max(np.sin(angle) ** 2 / 2, 0.02)


@pytest.mark.parametrize("form", kernels.DIPOLE_FORMS)
@pytest.mark.parametrize("shape", [(12, 10, 8), (7, 9, 11), (1, 8, 8), (6, 1, 1)])
def test_dipole_is_bounded_zero_at_the_origin_and_even(form, shape):
    grid = Grid(shape, (1.0, 1.3, 0.8), TILTED)
    dipole = kernels.dipole(grid, form)
    assert dipole.dtype == np.float32
    assert dipole.shape == (shape[0], shape[1], shape[2] // 2 + 1)
    assert np.isfinite(dipole).all()
    if form != "greens":
        assert dipole[0, 0, 0] == 0
        assert dipole.min() >= -2 / 3 - 1e-5
        assert dipole.max() <= 1 / 3 + 1e-5
    image = fourier.inverse(dipole.astype(np.complex64), shape)
    opposite = image
    for axis in range(3):
        opposite = np.roll(np.flip(opposite, axis), 1, axis)
    np.testing.assert_allclose(image, opposite, atol=2e-6)


@pytest.mark.parametrize("form", kernels.DIPOLE_FORMS)
def test_the_sign_of_b0_does_not_matter(form):
    forth = Grid((8, 9, 10), (1, 2, 3), TILTED)
    back = Grid((8, 9, 10), (1, 2, 3), tuple(-b for b in TILTED))
    np.testing.assert_array_equal(kernels.dipole(forth, form), kernels.dipole(back, form))


@pytest.mark.parametrize("form", kernels.DIPOLE_FORMS)
def test_the_dipole_turns_with_the_axes(form):
    grid = Grid((12, 10, 14), (1.0, 1.5, 0.8), TILTED)
    x = np.random.default_rng(0).standard_normal(grid.shape).astype(np.float32)
    field = fourier.filtered(x, kernels.dipole(grid, form))
    for order in itertools.permutations(range(3)):
        turned = Grid(*(tuple(values[i] for i in order) for values in (grid.shape, grid.voxel_size, grid.b0_direction)))
        other = fourier.filtered(np.ascontiguousarray(x.transpose(order)), kernels.dipole(turned, form))
        np.testing.assert_allclose(other, field.transpose(order), atol=1e-5 * float(np.abs(field).max()))


@pytest.mark.parametrize("form", kernels.DIPOLE_FORMS)
def test_the_dipole_is_its_own_adjoint(form):
    grid = Grid((11, 12, 13), (1.0, 1.5, 0.8), TILTED)
    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal(grid.shape).astype(np.float32) for _ in range(2))
    dipole = kernels.dipole(grid, form)
    left = np.sum(fourier.filtered(x, dipole).astype(np.float64) * y)
    right = np.sum(fourier.filtered(y, dipole).astype(np.float64) * x)
    assert left == pytest.approx(right, abs=1e-5 * float(np.linalg.norm(x) * np.linalg.norm(y)))


def test_forms_agree_at_low_frequencies():
    grid = Grid((96, 96, 96), (1.0, 1.0, 1.0), TILTED)
    low = np.sqrt(sum(k * k for k in fourier.frequencies(grid)))
    band = (low > 0.03) & (low < 0.06)
    continuous = kernels.dipole(grid)
    assert np.abs(kernels.dipole(grid, "discrete") - continuous)[band].max() < 0.03
    assert np.abs(kernels.dipole(grid, "greens") - continuous)[band].max() < 0.06


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="discrete"):
        kernels.dipole(Grid((4, 4, 4)), "spherical")


def test_spherical_mean_keeps_constants_and_linear_slopes():
    grid = Grid((32, 32, 32), (1.0, 1.0, 1.5))
    mean = kernels.spherical_mean(grid, 4.0)
    assert mean[0, 0, 0] == pytest.approx(1, abs=1e-6)
    x = np.arange(32, dtype=np.float32)[:, None, None] + np.zeros(grid.shape, np.float32)
    inner = slice(6, 26)
    np.testing.assert_allclose(fourier.filtered(x, mean)[inner], x[inner], atol=1e-4)


@pytest.mark.parametrize("sigma", [2.0, (1.0, 2.0, 3.0)])
def test_gaussian_has_its_width(sigma):
    grid = Grid((48, 48, 48), (1.0, 0.8, 1.2))
    point = np.zeros(grid.shape, dtype=np.float32)
    point[24, 24, 24] = 1
    blurred = fourier.filtered(point, kernels.gaussian(grid, sigma))
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    widths = (sigma,) * 3 if isinstance(sigma, float) else sigma
    for axis, (v, s) in enumerate(zip(grid.voxel_size, widths, strict=True)):
        profile = blurred.sum(axis=tuple(a for a in range(3) if a != axis))
        spread = np.sqrt(np.sum(profile * ((np.arange(48) - 24) * v) ** 2))
        assert spread == pytest.approx(s, rel=1e-2)
