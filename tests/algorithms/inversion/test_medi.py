"""MEDI: edges, outliers, spherical mean, uniform CSF."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.inversion.gauss_newton import edge_mask
from qsmxt.algorithms.inversion.medi import MEDIParameters, medi
from qsmxt.errors import InputError


def test_edges_are_the_strongest_share_of_differences(spheres):
    rng = np.random.default_rng(0)
    magnitude = rng.uniform(1, 2, spheres.grid.shape).astype(np.float32)
    edges = edge_mask(magnitude, spheres.mask, spheres.grid, 0.3)
    assert edges[:, spheres.mask].mean() == pytest.approx(0.7, abs=0.01)
    assert set(np.unique(edges)) == {0.0, 1.0}


def test_no_magnitude_no_edges(spheres):
    assert edge_mask(None, spheres.mask, spheres.grid, 0.3).all()


def test_edges_of_the_magnitude_help(spheres):
    without = medi(spheres.field, spheres.mask, spheres.grid)
    with_edges = medi(spheres.field, spheres.mask, spheres.grid, magnitude=spheres.magnitude)
    assert spheres.error(with_edges) < 0.8 * spheres.error(without) < 5


def test_echoes_of_the_magnitude_are_combined(spheres):
    echoes = np.stack([spheres.magnitude * np.float32(0.6), spheres.magnitude * np.float32(0.8)])
    one = medi(spheres.field, spheres.mask, spheres.grid, magnitude=spheres.magnitude)
    two = medi(spheres.field, spheres.mask, spheres.grid, magnitude=echoes)
    np.testing.assert_allclose(one, two, atol=2e-4)


def test_merit_survives_wrong_voxels(spheres):
    field = spheres.field.copy()
    rng = np.random.default_rng(1)
    wrong = rng.choice(np.flatnonzero(spheres.mask), 40, replace=False)
    field.reshape(-1)[wrong] += 0.3
    plain = medi(field, spheres.mask, spheres.grid, magnitude=spheres.magnitude)
    robust = medi(field, spheres.mask, spheres.grid, MEDIParameters(merit=True), magnitude=spheres.magnitude)
    assert spheres.error(robust) < 0.6 * spheres.error(plain)


def test_spherical_mean_takes_a_background_away(spheres):
    x = np.arange(spheres.grid.shape[0], dtype=np.float32)[:, None, None]
    y = np.arange(spheres.grid.shape[1], dtype=np.float32)[None, :, None]
    background = 0.01 * (x - 20) + 0.001 * ((x - 20) ** 2 - (y - 22) ** 2)
    field = spheres.field + (background * spheres.mask).astype(np.float32)
    chi = medi(field, spheres.mask, spheres.grid, MEDIParameters(smv_radius=5), magnitude=spheres.magnitude)
    kept = chi != 0
    assert 0.5 < kept.sum() / spheres.mask.sum() < 0.95
    truth, found = spheres.chi[kept], chi[kept]
    assert np.corrcoef(truth, found)[0, 1] > 0.97


def test_a_sphere_that_does_not_fit_is_refused(spheres):
    with pytest.raises(InputError, match="smv_radius"):
        medi(spheres.field, spheres.mask, spheres.grid, MEDIParameters(smv_radius=60))


def test_csf_becomes_uniform(spheres):
    rng = np.random.default_rng(2)
    field = spheres.field + (0.01 * rng.standard_normal(spheres.grid.shape)).astype(np.float32)
    region = np.zeros_like(spheres.mask)
    region[8:14, 18:26, 14:22] = True
    region &= spheres.mask
    free = medi(field, spheres.mask, spheres.grid, csf_mask=region, parameters=MEDIParameters(csf_weight=0))
    held = medi(field, spheres.mask, spheres.grid, csf_mask=region, parameters=MEDIParameters(csf_weight=10))
    assert held[region].std() < 0.3 * free[region].std()
