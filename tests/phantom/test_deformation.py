"""Deformations are invertible, compose with rigid motion, and move the anatomy where they say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from qsmxt.errors import InputError
from qsmxt.phantom.anatomy import INDEX, Coordinates
from qsmxt.phantom.deformation import Deformation
from qsmxt.phantom.head import HeadSettings, simulate

POINTS = np.random.default_rng(0).uniform(-90, 90, (200, 3))


@pytest.mark.parametrize("seed", range(5))
def test_inverse_and_positive_volume(seed):
    deformation = Deformation.random(seed, amplitude=4.0)
    np.testing.assert_allclose(deformation.at(deformation.inverse(POINTS)), POINTS, atol=1e-6)
    np.testing.assert_allclose(deformation.inverse(deformation.at(POINTS)), POINTS, atol=1e-6)
    assert np.linalg.det(deformation.jacobian(POINTS)).min() > 0.2


def test_jacobian_is_the_derivative():
    deformation = Deformation.random(3)
    step = 1e-4
    for axis in range(3):
        shift = np.eye(3)[axis] * step
        numeric = (deformation.at(POINTS + shift) - deformation.at(POINTS - shift)) / (2 * step)
        np.testing.assert_allclose(deformation.jacobian(POINTS)[:, :, axis], numeric, atol=1e-6)


def test_amplitude_is_the_rms_of_the_waves():
    wide = np.random.default_rng(1).uniform(-5000, 5000, (20000, 3))
    deformation = Deformation.random(2, amplitude=3.0)
    waves = deformation.at(wide) - wide @ deformation.linear.T - deformation.shift
    np.testing.assert_allclose(waves.std(axis=0), 3.0, rtol=0.05)


def test_a_folding_amplitude_is_refused():
    with pytest.raises(InputError, match="amplitude"):
        Deformation.random(0, amplitude=20.0)


def test_after_is_composition_and_identity_is_neutral():
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    move = np.array([3.0, -8.0, 2.0])
    deformation = Deformation.random(4)
    np.testing.assert_allclose(deformation.after(turn, move).at(POINTS), deformation.at(POINTS @ turn.T + move))
    np.testing.assert_array_equal(Deformation.identity().at(POINTS), POINTS)


@pytest.mark.parametrize("tilted", [False, True])
def test_coordinates_of_a_grid_are_the_map_of_its_points(tilted):
    deformation = Deformation.random(5)
    if tilted:
        deformation = deformation.after(np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0], np.ones(3))
    coordinates = Coordinates((5, 6, 7), (20.0, 15.0, 12.0), deformation)
    volumes = np.stack(coordinates.at(coordinates.everywhere), axis=-1)
    grid = np.stack(np.meshgrid(*coordinates.axes, indexing="ij"), axis=-1)
    np.testing.assert_allclose(volumes.reshape(-1, 3), deformation.at(grid.reshape(-1, 3).astype(float)), atol=1e-4)


def test_samples_near_a_curve_are_those_a_brute_search_finds():
    deformation = Deformation.random(6)
    coordinates = Coordinates((30, 30, 30), (2.0, 2.0, 2.0), deformation)
    curve = np.linspace([-20, 5, -10], [15, -10, 12], 200)
    found = np.zeros(coordinates.shape, bool)
    found[coordinates.near(curve, 3.0)] = True
    here = np.stack(coordinates.at(coordinates.everywhere), axis=-1).reshape(-1, 1, 3)
    expected = (((here - curve) ** 2).sum(axis=2).min(axis=1) <= 9.0).reshape(coordinates.shape)
    np.testing.assert_array_equal(found, expected)


def test_nuclei_move_with_the_deformation():
    settings = HeadSettings(voxel_size=(4.0, 4.0, 4.0), echo_times=(0.01,), oversampling=2)
    moved = simulate(dataclasses.replace(settings, deformation=3))
    assert ndimage.label(moved.brain)[1] == 1
    centre = (np.array(moved.grid.shape) - 1) / 2
    inverse = settings.__class__(deformation=3).subject.inverse
    for side in (1, -1):
        inside = (moved.labels == INDEX["putamen"]) & (side * (np.arange(moved.grid.shape[0]) - centre[0]) > 0)[
            :, None, None
        ]
        middle = (np.argwhere(inside).mean(axis=0) - centre) * 4.0
        np.testing.assert_allclose(middle, inverse(np.array([[side * 26.0, 6.0, 4.0]]))[0], atol=1.5)
