"""Meshes: topology, area, normals, enclosed volume."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from qsmxt.algorithms.masking import mesh
from qsmxt.geometry import Grid


@pytest.mark.parametrize("level", [0, 1, 3])
def test_the_icosphere_is_closed_and_its_faces_look_outwards(level):
    vertices, faces, rings = mesh.icosphere(level)
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    assert len(vertices) == 10 * 4**level + 2
    assert len(vertices) - len(edges) + len(faces) == 2
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    assert (np.einsum("ij,ij->i", normal, a + b + c) > 0).all()
    assert (rings >= 0).sum() == 2 * len(edges)
    np.testing.assert_allclose(mesh.outward_normals(vertices, rings), vertices, atol=0.05)


def test_the_area_tends_to_that_of_the_sphere():
    vertices, faces, _ = mesh.icosphere(4)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2 == pytest.approx(4 * np.pi, rel=2e-3)


def test_a_refined_sphere_keeps_its_vertices_and_order():
    coarse, fine = mesh.icosphere(2)[0], mesh.icosphere(3)[0]
    refined = mesh.refine(coarse, 3)
    np.testing.assert_array_equal(refined[: len(coarse)], coarse)
    lengths = np.linalg.norm(refined, axis=1, keepdims=True)
    np.testing.assert_allclose(refined / lengths, fine, atol=1e-12)


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (0.7, 1.3, 3.0)])
def test_enclosed_voxels_are_those_of_the_ball(size):
    shape = tuple(round(48 / v) for v in size)
    grid = Grid(shape, size)
    centre = np.array([23.7, 24.1, 23.9])
    vertices, faces, _ = mesh.icosphere(5)
    inside = mesh.enclosed(centre + 20 * vertices, faces, grid)
    x, y, z = (np.arange(n) * v - c for n, v, c in zip(shape, size, centre, strict=True))
    distance = np.sqrt(x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2)
    assert inside[distance < 19.95].all() and not inside[distance > 20].any()


def test_a_surface_through_the_border_is_cut_there():
    grid = Grid((10, 10, 10))
    vertices, faces, _ = mesh.icosphere(3)
    assert mesh.enclosed(np.full(3, 4.5) + 40 * vertices, faces, grid).all()
    half = mesh.enclosed(np.array([4.5, 4.5, -0.5]) + 4 * vertices, faces, grid)
    assert half[4, 4, 0] and half[4, 4, 2] and not half[4, 4, 4:].any()


def test_crossed_surfaces_leave_no_hole():
    grid = Grid((40, 20, 20))
    vertices, faces, _ = mesh.icosphere(3)
    both = np.concatenate([vertices * 8 + [12, 10, 10], vertices * 8 + [20, 10, 10]])
    joined = mesh.enclosed(both, np.concatenate([faces, faces + len(vertices)]), grid)
    parts = [mesh.enclosed(vertices * 8 + [x, 10, 10], faces, grid) for x in (12, 20)]
    np.testing.assert_array_equal(joined, parts[0] | parts[1])


def test_ring_means_smooth_and_keep_constants():
    vertices, _, rings = mesh.icosphere(2)
    np.testing.assert_allclose(mesh.ring_means(np.full(len(vertices), 2.5), rings), 2.5)
    np.testing.assert_allclose(mesh.ring_means(vertices[:, 2].copy(), rings), vertices[:, 2], atol=0.1)


def test_interpolation_is_exact_for_trilinear_functions_and_constant_beyond_the_border():
    i, j, k = np.indices((4, 5, 6))
    volume = (1 + 2 * i - j + 0.5 * k + 0.1 * i * j * k).astype(np.float32)
    x, y, z = 1.3, 2.6, 4.2
    assert mesh.interpolated(volume, x, y, z) == pytest.approx(1 + 2 * x - y + 0.5 * z + 0.1 * x * y * z, rel=1e-6)
    assert mesh.interpolated(volume, -3.0, 9.0, 2.0) == volume[0, 4, 2]


def test_the_volume_of_a_cube_and_of_a_sphere():
    corners = np.array([(x, y, z) for x in (1.0, 4.0) for y in (2.0, 5.0) for z in (-1.0, 2.0)])
    hull = ConvexHull(corners)
    a, b, c = (corners[hull.simplices[:, i]] for i in range(3))
    outward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a - corners.mean(axis=0)) > 0
    faces = np.where(outward[:, None], hull.simplices, hull.simplices[:, ::-1])
    assert mesh.volume(corners, faces) == pytest.approx(27)
    vertices, faces, _ = mesh.icosphere(4)
    assert mesh.volume(10 * vertices + 50, faces) == pytest.approx(4000 / 3 * np.pi, rel=0.01)
