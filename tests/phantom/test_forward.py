"""Linear convolution with the dipole against the closed form and against a plain padded transform."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.phantom import shapes
from qsmxt.phantom.forward import DipoleField

TILT = (0.0, -np.sin(0.4), np.cos(0.4))


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), TILT])
def test_sphere_has_its_closed_form_field(direction):
    grid = Grid((48, 46, 44), (1.0, 1.0, 1.0), direction)
    fraction = shapes.filling(grid, 8.0, (2.0, -1.0, 0.5))
    field = DipoleField(grid.shape, grid.voxel_size, grid.b0_direction)(fraction)
    radius = (3 * fraction.sum(dtype=np.float64) / (4 * np.pi)) ** (1 / 3)
    expected = shapes.sphere_field(grid, radius, centre=(2.0, -1.0, 0.5))
    far = ~shapes.ellipsoid(grid, 10.0, (2.0, -1.0, 0.5))
    assert np.linalg.norm((field - expected)[far]) < 2e-3 * np.linalg.norm(expected[far])
    assert np.abs(field[shapes.ellipsoid(grid, 6.0, (2.0, -1.0, 0.5))]).max() < 3e-3


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 0.6)])
def test_equals_a_plain_padded_convolution(spacing):
    shape = (10, 12, 9)
    chi = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    padded = Grid((40, 40, 40), spacing, TILT)
    volume = np.zeros(padded.shape, np.float32)
    volume[:10, :12, :9] = chi
    expected = fourier.filtered(volume, kernels.dipole(padded, "greens"))[:10, :12, :9]
    field = DipoleField(shape, spacing, TILT)(chi)
    np.testing.assert_allclose(field, expected, atol=2e-3)
    np.testing.assert_allclose(field.std(), expected.std(), rtol=1e-3)


def test_source_at_one_face_does_not_wrap_to_the_other():
    chi = np.zeros((6, 6, 20), np.float32)
    chi[3, 3, 19] = 1.0
    field = DipoleField(chi.shape, (2.0, 2.0, 2.0))(chi)
    np.testing.assert_allclose(field[3, 3, 0], 2 / (4 * np.pi) / 19**3, rtol=0.01)


def test_lowest_slice_goes_on_below():
    """A column that is continued downwards by its own length equals the upper half of a column of twice the length."""
    chi = np.zeros((8, 8, 24), np.float32)
    chi[2:6, 2:6] = 1.0
    continued = DipoleField((8, 8, 12), (1.0, 1.0, 1.0), below=12.0)(chi[:, :, :12])
    whole = DipoleField(chi.shape, (1.0, 1.0, 1.0))(chi)[:, :, 12:]
    np.testing.assert_allclose(continued, whole, atol=1e-5)


def test_field_across_the_x_axis_is_refused():
    with pytest.raises(InputError, match="y-z plane"):
        DipoleField((4, 4, 4), (1.0, 1.0, 1.0), (0.6, 0.0, 0.8))
