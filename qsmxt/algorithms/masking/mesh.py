r"""Closed triangle meshes: subdivided icosahedra, their evolution in an image, and what they enclose.

Positions are in mm, voxel centre ``(i, j, k)`` lies at ``(i v_x, j v_y, k v_z)``.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from qsmxt.algorithms.compiled import kernel
from qsmxt.geometry import Grid

#: Largest number of neighbours of a vertex.
VALENCE = 6


@cache
def icosphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit sphere of ``10 * 4 ** subdivisions + 2`` vertices.

    Returns
    -------
    vertices
        ``(n, 3)`` float64, length 1.
    faces
        ``(m, 3)`` int32, counter-clockwise seen from outside.
    rings
        ``(n, 6)`` int32, neighbours of every vertex counter-clockwise; -1 in the last place of the twelve
        vertices that have five.
    """
    if subdivisions == 0:
        vertices, faces = _icosahedron()
    else:
        vertices, faces = _subdivide(*icosphere(subdivisions - 1)[:2])
    arrays = vertices, faces, _rings(len(vertices), faces)
    for array in arrays:
        array.flags.writeable = False
    return arrays


def _icosahedron() -> tuple[np.ndarray, np.ndarray]:
    golden = (1 + 5**0.5) / 2
    corners = [(a, b * golden, 0.0) for a in (-1, 1) for b in (-1, 1)]
    vertices = np.array([np.roll(c, shift) for shift in range(3) for c in corners])
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    gram = vertices @ vertices.T
    near = (gram > 0.4) & (gram < 0.9)
    faces = []
    for i in range(12):
        for j in range(i + 1, 12):
            for k in range(j + 1, 12):
                if near[i, j] and near[j, k] and near[i, k]:
                    outward = np.linalg.det(vertices[[i, j, k]]) > 0
                    faces.append((i, j, k) if outward else (i, k, j))
    return vertices, np.array(faces, dtype=np.int32)


def _subdivide(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    middle = vertices[unique].sum(axis=1)
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    ab, bc, ca = (inverse.reshape(3, -1) + len(vertices)).astype(np.int32)
    a, b, c = faces.T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.concatenate([vertices, middle]), np.concatenate([np.stack(p, axis=1) for p in parts])


def _rings(count: int, faces: np.ndarray) -> np.ndarray:
    following: list[dict[int, int]] = [{} for _ in range(count)]
    for a, b, c in faces.tolist():
        following[a][b] = c
        following[b][c] = a
        following[c][a] = b
    rings = np.full((count, VALENCE), -1, dtype=np.int32)
    for vertex, after in enumerate(following):
        current = min(after)
        for place in range(len(after)):
            rings[vertex, place] = current
            current = after[current]
    return rings


def refine(vertices: np.ndarray, subdivisions: int) -> np.ndarray:
    """Vertices of an evolved mesh of ``subdivisions - 1`` with one vertex added in the middle of every edge."""
    faces = icosphere(subdivisions - 1)[1]
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique = np.unique(edges, axis=0)
    return np.concatenate([vertices, vertices[unique].mean(axis=1)])


def enclosed(vertices: np.ndarray, faces: np.ndarray, grid: Grid) -> np.ndarray:
    """Bool volume of the voxels whose centre lies inside the closed surface.

    Inside is where the surface winds around the centre more often outwards than inwards: where a fold of the
    surface crosses itself this leaves no holes.
    """
    turns = np.zeros(grid.shape, dtype=np.int8)
    # A shift far below the voxel size keeps voxel centres off vertices and edges.
    scaled = vertices / np.array(grid.voxel_size) + np.array([1.234e-5, 2.718e-5, 3.1e-6])
    _mark_crossings(scaled, faces, turns)
    np.cumsum(turns, axis=2, dtype=np.int8, out=turns)
    return turns > 0


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume inside the closed surface, mm^3: the sum of the signed volumes of the tetrahedra to the origin."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


@kernel(fastmath=False)
def _mark_crossings(vertices, faces, turns):
    """Add 1 where a line along the last axis enters the surface and subtract 1 where it leaves it."""
    nx, ny, nz = turns.shape
    for face in range(faces.shape[0]):
        ax, ay, az = vertices[faces[face, 0]]
        bx, by, bz = vertices[faces[face, 1]]
        cx, cy, cz = vertices[faces[face, 2]]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        first_x = max(0, int(np.ceil(min(ax, bx, cx))))
        last_x = min(nx - 1, int(np.floor(max(ax, bx, cx))))
        first_y = max(0, int(np.ceil(min(ay, by, cy))))
        last_y = min(ny - 1, int(np.floor(max(ay, by, cy))))
        step = -1 if area > 0 else 1
        for x in range(first_x, last_x + 1):
            for y in range(first_y, last_y + 1):
                wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
                wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
                wc = 1.0 - wa - wb
                if wa >= 0.0 and wb >= 0.0 and wc >= 0.0:
                    z = int(np.ceil(wa * az + wb * bz + wc * cz))
                    if z < nz:
                        turns[x, y, max(z, 0)] += step


@kernel
def mean_edge(vertices, rings):
    """Mean distance between neighbouring vertices, mm."""
    total = 0.0
    count = 0
    for vertex in range(vertices.shape[0]):
        for place in range(rings.shape[1]):
            other = rings[vertex, place]
            if other >= 0:
                dx = vertices[other, 0] - vertices[vertex, 0]
                dy = vertices[other, 1] - vertices[vertex, 1]
                dz = vertices[other, 2] - vertices[vertex, 2]
                total += np.sqrt(dx * dx + dy * dy + dz * dz)
                count += 1
    return total / count


@kernel
def outward_normal(vertices, rings, vertex):
    """Unit normal of the ring around one vertex."""
    valence = rings.shape[1]
    if rings[vertex, valence - 1] < 0:
        valence -= 1
    nx = ny = nz = 0.0
    cx, cy, cz = vertices[vertex]
    for place in range(valence):
        a = rings[vertex, place]
        b = rings[vertex, place + 1 if place + 1 < valence else 0]
        ax, ay, az = vertices[a, 0] - cx, vertices[a, 1] - cy, vertices[a, 2] - cz
        bx, by, bz = vertices[b, 0] - cx, vertices[b, 1] - cy, vertices[b, 2] - cz
        nx += ay * bz - az * by
        ny += az * bx - ax * bz
        nz += ax * by - ay * bx
    norm = np.sqrt(nx * nx + ny * ny + nz * nz)
    if norm == 0.0:
        return 0.0, 0.0, 0.0
    return nx / norm, ny / norm, nz / norm


@kernel
def outward_normals(vertices, rings):
    """Unit normals of all rings, ``(n, 3)``."""
    normals = np.empty_like(vertices)
    for vertex in range(vertices.shape[0]):
        normals[vertex, 0], normals[vertex, 1], normals[vertex, 2] = outward_normal(vertices, rings, vertex)
    return normals


@kernel
def ring_means(values, rings):
    """Mean of every vertex and its neighbours."""
    out = values.copy()
    for vertex in range(values.size):
        count = 1
        for place in range(rings.shape[1]):
            if rings[vertex, place] >= 0:
                out[vertex] += values[rings[vertex, place]]
                count += 1
        out[vertex] /= count
    return out


@kernel
def interpolated(volume, x, y, z):
    """Trilinear value at a position in voxels; positions outside take the value at the border."""
    nx, ny, nz = volume.shape
    x = min(max(x, 0.0), nx - 1.0)
    y = min(max(y, 0.0), ny - 1.0)
    z = min(max(z, 0.0), nz - 1.0)
    i, j, k = int(x), int(y), int(z)
    i1, j1, k1 = min(i + 1, nx - 1), min(j + 1, ny - 1), min(k + 1, nz - 1)
    fx, fy, fz = x - i, y - j, z - k
    low = (1 - fx) * ((1 - fy) * volume[i, j, k] + fy * volume[i, j1, k]) + fx * (
        (1 - fy) * volume[i1, j, k] + fy * volume[i1, j1, k]
    )
    high = (1 - fx) * ((1 - fy) * volume[i, j, k1] + fy * volume[i, j1, k1]) + fx * (
        (1 - fy) * volume[i1, j, k1] + fy * volume[i1, j1, k1]
    )
    return (1 - fz) * low + fz * high
