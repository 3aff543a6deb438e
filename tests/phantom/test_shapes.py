"""The closed forms against each other, against the dipole kernel, and against Laplace's equation."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels
from qsmxt.constants import GAMMA_BAR_HZ_PER_T
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.phantom import shapes

TILTED = (0.0, -0.5, np.sqrt(0.75))


def laplacian(field: np.ndarray, voxel_size: tuple[float, float, float]) -> np.ndarray:
    inner = (slice(1, -1),) * 3
    out = np.zeros(tuple(n - 2 for n in field.shape))
    for axis, v in enumerate(voxel_size):
        ahead = tuple(slice(2, None) if a == axis else slice(1, -1) for a in range(3))
        behind = tuple(slice(None, -2) if a == axis else slice(1, -1) for a in range(3))
        out += (field[ahead] + field[behind] - 2 * field[inner]) / v**2
    return out


@pytest.mark.parametrize("direction", [(0, 0, 1), TILTED, (1, 2, -1)])
def test_sphere_agrees_with_the_dipole_kernel(direction):
    grid = Grid((96, 96, 96), b0_direction=direction)  # the sphere sits in the inner half: padded twofold
    fraction = shapes.filling(grid, 8.0)
    field = fourier.filtered(fraction, kernels.dipole(grid, "greens"))
    effective = (3 * fraction.sum(dtype=np.float64) / (4 * np.pi)) ** (1 / 3)
    expected = shapes.sphere_field(grid, effective)
    x, y, z = shapes.positions(grid)
    distance = np.sqrt(x * x + y * y + z * z)
    shell = (distance > 10) & (distance < 22)
    assert np.linalg.norm((field - expected)[shell]) < 0.005 * np.linalg.norm(expected[shell])
    assert abs(field[distance < 5].mean()) < 1e-3
    assert (expected[distance < 7.9] == 0).all()


def test_sphere_at_pole_and_equator():
    grid = Grid((41, 1, 41), (0.5, 1.0, 0.5))
    field = shapes.sphere_field(grid, radius=4.0, chi=0.6)
    assert field[20, 0, 20 + 16] == pytest.approx(0.6 * 2 / 3 / 8)  # 8 mm above: 2/3 chi (R/r)^3
    assert field[20 + 16, 0, 20] == pytest.approx(-0.6 / 3 / 8)
    assert field[20, 0, 20 + 8] == pytest.approx(0.4)  # the pole


@pytest.mark.parametrize(
    ("direction", "inside"), [((1, 0, 0), -1 / 6), ((0, 0, 1), 1 / 3), ((0.5, 0, np.sqrt(0.75)), 0.75 / 2 - 1 / 6)]
)
def test_cylinder_agrees_with_the_dipole_kernel(direction, inside):
    grid = Grid((160, 160, 4), b0_direction=direction)
    fraction = shapes.filling(grid, 8.0, axis=2)
    field = fourier.filtered(fraction, kernels.dipole(grid, "continuous"))
    expected = shapes.cylinder_field(grid, 8.0)
    x, y, _ = shapes.positions(grid)
    distance = np.sqrt(x * x + y * y)[:, :, 0]
    assert expected[distance < 7][0, 0] == pytest.approx(inside, abs=1e-6)
    # the periodic box has mean zero: an offset of chi times the filled fraction times the inside value
    assert field[distance < 6].mean() == pytest.approx(inside, abs=5e-3)
    ring = (distance > 10) & (distance < 24)
    error = (field - expected)[ring]
    error -= error.mean()
    assert np.linalg.norm(error) <= 0.03 * max(np.linalg.norm(expected[ring]), 1.0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_cylinder_outside_is_the_limit_of_many_spheres(axis):
    """A row of touching point dipoles of the same volume per length has the far field of the cylinder."""
    direction = (0.6, -0.48, 0.64)
    shape = [9, 9, 9]
    shape[axis] = 1
    grid = Grid(tuple(shape), (2.0, 2.0, 2.0), direction)
    radius, step = 1.0, 0.5
    equivalent = (3 * radius**2 * step / 4) ** (1 / 3)
    total = np.zeros(grid.shape)
    for offset in np.arange(-300, 300 + step, step):
        centre = [0.0, 0.0, 0.0]
        centre[axis] = offset
        total += shapes.sphere_field(grid, equivalent, 1.0, tuple(centre))
    expected = shapes.cylinder_field(grid, radius, axis=axis)
    far = np.ones(grid.shape, bool)
    far[tuple(0 if a == axis else 4 for a in range(3))] = False
    np.testing.assert_allclose(total[far], expected[far], atol=2e-4)


def test_filling_has_the_volume_of_the_shape():
    grid = Grid((32, 24, 28), (1.0, 1.5, 1.2))
    volume = shapes.filling(grid, 9.0, (0.3, -1.0, 2.0)).sum(dtype=np.float64) * grid.voxel_volume
    assert volume == pytest.approx(4 / 3 * np.pi * 9**3, rel=2e-3)
    area = shapes.filling(grid, 9.0, axis=1).sum(dtype=np.float64) * grid.voxel_volume / (24 * 1.5)
    assert area == pytest.approx(np.pi * 81, rel=3e-3)


def test_ellipsoid_has_its_volume_and_place():
    grid = Grid((60, 60, 60), (1.0, 1.0, 1.0))
    inside = shapes.ellipsoid(grid, (20, 15, 10), (3, -2, 5))
    assert inside.sum() == pytest.approx(4 / 3 * np.pi * 3000, rel=0.01)
    np.testing.assert_allclose(np.argwhere(inside).mean(axis=0) - 29.5, (3, -2, 5), atol=0.02)


def test_external_spheres_and_harmonics_satisfy_laplace():
    grid = Grid((20, 22, 24), (1.0, 1.5, 0.8), TILTED)
    external = shapes.external_spheres_field(grid, [((40, 5, 0), 8.0, 9.0), ((0, -50, 10), 12.0, -3.0)])
    fields = {"external": external, **shapes.harmonic_fields(grid)}
    for name, field in fields.items():
        second = np.diff(field.astype(np.float64), 2, axis=0)
        scale = max(np.abs(second).max(), np.abs(field).max() * 1e-3)
        residual = np.abs(laplacian(field.astype(np.float64), grid.voxel_size)).max()
        assert residual < (0.05 if name == "external" else 5e-3) * scale, name


def test_multi_echo_phase_is_the_field():
    field = np.full((2, 1, 1), 0.05, np.float32)
    field[1] = -0.9
    times = (0.004, 0.012)
    phase, magnitude = shapes.multi_echo(field, times, 3.0, magnitude=2.0, r2star=30.0, phase_offset=0.3)
    for echo, time in enumerate(times):
        turns = GAMMA_BAR_HZ_PER_T * 3.0 * 1e-6 * field[:, 0, 0] * time
        expected = np.angle(np.exp(1j * (2 * np.pi * turns + 0.3)))
        np.testing.assert_allclose(phase[echo, :, 0, 0], expected, atol=1e-5)
        np.testing.assert_allclose(magnitude[echo], 2 * np.exp(-30 * time), rtol=1e-5)


def test_multi_echo_noise_has_its_standard_deviation():
    field = np.zeros((40, 40, 40), np.float32)
    phase, magnitude = shapes.multi_echo(field, (0.01,), 3.0, noise=0.02)
    assert phase.std() == pytest.approx(0.02, rel=0.02)
    assert magnitude.std() == pytest.approx(0.02, rel=0.02)
    again, _ = shapes.multi_echo(field, (0.01,), 3.0, noise=0.02)
    np.testing.assert_array_equal(phase, again)
    with pytest.raises(InputError, match="echo_times"):
        shapes.multi_echo(field, (), 3.0)
