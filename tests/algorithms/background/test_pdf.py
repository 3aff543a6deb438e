"""PDF: the projection it is, the direction of B0, the weights, and thin volumes."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels, morphology
from qsmxt.algorithms.background.pdf import PDFParameters, pdf
from qsmxt.errors import InputError
from qsmxt.geometry import Grid

CONVERGED = PDFParameters(tolerance=1e-5, iterations=300, padding=10.0)


def test_what_is_left_is_orthogonal_to_every_dipole_outside(case):
    """So it is at the minimum of a least-squares problem. Single dipoles here; their images in the box add little."""
    local, _ = pdf(case.total, case.mask, case.grid, CONVERGED)
    start = case.total - case.total[case.mask].mean()
    index = np.argwhere(case.mask)
    for source in ((20, 42, 20), (2, 5, 5), (38, 30, 30)):
        offset = index - np.array(source)
        square = (offset**2).sum(1).astype(float)
        dipole = (3 * offset[:, 2] ** 2 - square) / (4 * np.pi * square**2.5)
        dipole -= dipole.mean()
        before = abs(dipole @ start[case.mask])
        assert abs(dipole @ local[case.mask]) < 0.02 * before + 1e-6


def test_local_field_is_found(case, oblique_case):
    for some in (case, oblique_case):
        local, kept = pdf(some.total, some.mask, some.grid, CONVERGED)
        assert np.array_equal(kept, some.mask)
        assert some.error(local, kept) < 0.5


def test_more_iterations_do_no_harm(case):
    """With dipoles that are not summed over their images the error grows without end."""
    errors = [
        case.error(*pdf(case.total, case.mask, case.grid, PDFParameters(tolerance=1e-7, iterations=n)))
        for n in (30, 100, 300)
    ]
    assert errors[2] < 1.1 * errors[0]


def test_dipoles_of_any_direction_span_the_same_background(oblique_case):
    """Harmonic functions need no particular direction, so a wrong one costs iterations and little else."""
    wrong = Grid(oblique_case.grid.shape, oblique_case.grid.voxel_size, (0, 0, 1))
    right, other = (
        pdf(oblique_case.total, oblique_case.mask, grid, CONVERGED)[0] for grid in (oblique_case.grid, wrong)
    )
    assert not np.array_equal(right, other)
    assert np.linalg.norm(right - other) < 0.5 * np.linalg.norm(right)


def test_noisy_voxels_weigh_little(case):
    rng = np.random.default_rng(0)
    bad = case.mask & (rng.random(case.grid.shape) < 0.05)
    field = case.total + np.where(bad, rng.normal(size=case.grid.shape), 0).astype(np.float32)
    noise = np.where(bad, 1.0, 0.01).astype(np.float32)
    good = case.mask & ~bad
    weighted = pdf(field, case.mask, case.grid, field_noise=noise)[0]
    plain = pdf(field, case.mask, case.grid)[0]
    assert case.error(weighted, good) < 0.7 * case.error(plain, good)


def test_uniform_noise_changes_nothing(case):
    plain, _ = pdf(case.total, case.mask, case.grid)
    weighted, _ = pdf(case.total, case.mask, case.grid, field_noise=np.full(case.grid.shape, 0.3, np.float32))
    np.testing.assert_allclose(weighted, plain, atol=1e-3 * np.abs(case.total).max())


def test_a_field_of_four_times_the_size_gives_four_times_the_result(case):
    one, _ = pdf(case.total, case.mask, case.grid)
    four, _ = pdf(4 * case.total, case.mask, case.grid)
    assert np.array_equal(four, 4 * one)


@pytest.mark.parametrize("shape", [(24, 28, 1), (1, 17, 19), (13, 11, 2)])
def test_thin_and_prime_volumes(shape):
    grid = Grid(shape)
    x, y, _ = np.indices(shape, dtype=np.float32)
    field = 0.05 * x - 0.02 * y + 0.001 * (x * x - y * y)
    local, kept = pdf(field, np.ones(shape, bool), grid, CONVERGED)
    assert kept.all()
    assert local.std() < 0.05 * field.std()


def test_sources_in_a_hole_of_the_mask_are_local(case):
    """A vein that is cut out of the mask keeps its field in the local field."""
    hole = np.zeros(case.grid.shape, bool)
    hole[19:21, 18:20, 8:28] = True
    inside = np.zeros(case.grid.shape, np.float32)
    inside[hole] = 0.3
    wide = case.grid.with_shape(tuple(2 * n for n in case.grid.shape))
    padded = np.zeros(wide.shape, np.float32)
    padded[:40, :44, :36] = inside
    field = fourier.filtered(padded, kernels.dipole(wide, "greens"))[:40, :44, :36]
    mask = case.mask & ~hole
    local, _ = pdf(field + case.background, mask, case.grid)
    near = mask & morphology.dilate(hole, case.grid, 4.0)
    assert np.polyfit(field[near], local[near], 1)[0] == pytest.approx(1, abs=0.15)


def test_no_room_for_sources_is_refused():
    shape = (16, 16, 16)
    with pytest.raises(InputError, match="padding"):
        pdf(np.zeros(shape, np.float32), np.ones(shape, bool), Grid(shape), PDFParameters(padding=0.0))
