"""Background removals against dense linear algebra and plain loops on a few hundred voxels."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse.linalg

from qsmxt.algorithms import kernels
from qsmxt.algorithms.background.harperella import harperella
from qsmxt.algorithms.background.iharperella import iharperella
from qsmxt.algorithms.background.lbv import lbv
from qsmxt.algorithms.background.msmv import msmv
from qsmxt.algorithms.background.pdf import pdf
from qsmxt.algorithms.background.periodic_dipole import periodic_dipole
from qsmxt.algorithms.background.tvpdf import tvpdf
from qsmxt.algorithms.inversion.tvtfi import tvtfi
from qsmxt.constants import rad_per_ppm
from qsmxt.geometry import Grid
from tests.algorithms import dense
from tests.algorithms.dense import Box

GRID = Grid((7, 6, 6), (10.0, 11.0, 9.0), (0.3, 0.0, 0.954))
PADDING = 30.0


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray]:
    """Field (ppm) and mask."""
    rng = np.random.default_rng(0)
    x, y, z = np.indices(GRID.shape) - 3.0
    mask = x * x / 13 + y * y / 10 + z * z / 10 < 1
    field = 0.02 * x - 0.01 * y * z + 0.004 * rng.standard_normal(GRID.shape)
    return np.where(mask, field, 0).astype(np.float32), mask


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_lbv_subtracts_the_dense_solution_of_laplace(case):
    field, mask = case
    found, kept = lbv(field, mask, GRID, lbv.method.configure({"harmonic_degree": -1, "tolerance": 1e-6}))
    expected = np.where(kept, field - dense.continuation(field, mask, GRID.voxel_size), 0)
    assert np.array_equal(kept, dense.interior(mask))
    assert relative(found, expected) < 1e-3


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_pdf_is_lsqr_of_the_dipoles_outside(iterations, case):
    """Conjugate gradients on the normal equations make the iterates of scipy's LSQR."""
    field, mask = case
    noise = np.random.default_rng(1).uniform(0.005, 0.03, GRID.shape).astype(np.float32)
    box = Box.around(mask, GRID, PADDING)
    w = box.extract(np.where(mask, np.sqrt(0.01**2 / (0.01**2 + noise**2)), 0))
    f = box.extract(field - field[mask].mean()) * box.mask
    matrix = w[:, None] * dense.of_half(periodic_dipole(box.grid), box.grid.shape)[:, ~box.mask]
    sources = scipy.sparse.linalg.lsqr(matrix, w * f, atol=0, btol=0, conlim=0, iter_lim=iterations)[0]
    image = dense.of_half(periodic_dipole(box.grid), box.grid.shape)[:, ~box.mask] @ sources
    settings = {"padding": PADDING, "iterations": iterations, "tolerance": 1e-12, "closing": 0.0}
    found, _ = pdf(field, mask, GRID, pdf.method.configure(settings), field_noise=noise)
    assert relative(found, box.restore(f - image)) < 2e-3


def _laplacian(grid: Grid) -> np.ndarray:
    g = dense.gradient(grid)
    return -g.T @ g


@pytest.mark.parametrize("method", [harperella, iharperella])
def test_harperella_completes_the_laplacian_by_dense_conjugate_gradients(method, case):
    """Phase that does not wrap; the same number of steps by scipy with the matrices of the paper."""
    field, mask = case
    grid = Grid(GRID.shape, (10.0, 10.0, 10.0))  # cubic, so that the mean over a sphere is the plain one
    times, steps = np.array([0.002]), 6
    box = Box.around(mask, grid, PADDING)
    known = box.extract(dense.interior(mask)).astype(bool)
    laplace = np.where(known, _laplacian(box.grid) @ box.extract(field), 0)
    inverse = np.linalg.pinv(_laplacian(box.grid), rcond=1e-9)
    if method is harperella:
        mean = dense.spherical_mean(box.grid, 12.0)
        centred = np.eye(len(mean)) - np.full((len(mean),) * 2, 1 / len(mean))
        normal = centred @ mean.T @ mean @ centred
    else:
        normal = inverse.T @ (box.mask[:, None] * inverse)
    rest = np.ix_(~known, ~known)
    right = -(normal @ laplace)[~known]
    completed = laplace.copy()
    completed[~known] = scipy.sparse.linalg.cg(normal[rest], right, rtol=0, maxiter=steps)[0]
    expected = box.restore(inverse @ completed)
    expected = np.where(mask, expected - expected[mask].mean(), 0)
    settings = {"iterations": steps, "tolerance": 1e-9, "padding": PADDING, "harmonic_degree": -1}
    settings |= {"radius": 12.0} if method is harperella else {}
    phase = (rad_per_ppm(3.0, times[0]) * field)[None]
    found, kept = method(phase, times, 3.0, mask, grid, method.method.configure(settings))
    assert np.array_equal(kept, mask)
    assert relative(found, expected) < 5e-3


def test_msmv_is_the_plain_loop_over_the_rim():
    """From LBV on: means over the part of the sphere in the mask, subtracted where the field is too large."""
    grid = Grid((13, 12, 11))
    rng = np.random.default_rng(2)
    x, y, z = np.indices(grid.shape) - np.array([6, 5.5, 5])[:, None, None, None]
    mask = x * x + y * y + z * z < 25
    total = (0.02 * rng.standard_normal(grid.shape) + 0.05 * x).astype(np.float32)
    start, kept = lbv(total, mask, grid)
    i = np.arange(-2, 3)
    ball = i[:, None, None] ** 2 + i[None, :, None] ** 2 + i[None, None, :] ** 2 <= 4
    core = scipy.ndimage.binary_erosion(kept, ball)
    middle = np.median(start[core])
    limit = 1.5 * 1.4826 * np.median(np.abs(start[core] - middle))
    expected = start.astype(float)
    for _ in range(3):
        wrong = kept & ~core & (np.abs(expected - middle) > limit)
        new = expected.copy()
        for a, b, c in np.argwhere(wrong):
            near = [(a + p, b + q, c + r) for p, q, r in np.argwhere(ball) - 2 if kept[a + p, b + q, c + r]]
            new[a, b, c] -= np.mean([expected[v] for v in near])
        expected = new
    settings = {"initial": "lbv", "radius": 2.0, "limit": 1.5, "passes": 3}
    found, _ = msmv(total, mask, grid, msmv.method.configure(settings))
    assert relative(start, expected) > 0.05
    assert relative(found, expected) < 1e-4


def test_tvpdf_is_the_local_field_of_the_inversion_and_at_the_rim_that_of_its_sources(case):
    """The sum over voxels of the field of each; the inversion has an oracle of its own."""
    field, mask = case
    settings = {"weight": 2e-3, "iterations": 10, "margin": 20.0}
    chi, local = tvtfi(field, mask, GRID, tvtfi.method.configure(settings))
    axes = [np.arange(-(n - 1), n) for n in GRID.shape]
    unit = kernels.voxel_dipole(axes, np.array(GRID.voxel_size), np.array(GRID.b0_direction))
    plain = np.zeros(GRID.shape)
    for a, b, c in np.argwhere(mask):
        part = tuple(slice(n - 1 - i, 2 * n - 1 - i) for n, i in zip(GRID.shape, (a, b, c), strict=True))
        plain += chi[a, b, c] * unit[part]
    expected = np.where(dense.interior(mask), local, plain) * mask
    found, kept = tvpdf(field, mask, GRID, tvpdf.method.configure(settings))
    assert np.array_equal(kept, mask)
    assert relative(found, expected) < 2e-3
