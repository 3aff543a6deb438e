"""SHARP and V-SHARP against the plain formulas with Fourier transforms and scipy's erosion."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from qsmxt.algorithms.background.sharp import SHARPParameters, sharp
from qsmxt.algorithms.background.vsharp import VSHARPParameters, radii_between, vsharp
from qsmxt.errors import InputError, ParameterError
from qsmxt.geometry import Grid


def ball(radius):
    r = int(radius)
    x, y, z = np.ogrid[-r : r + 1, -r : r + 1, -r : r + 1]
    return x * x + y * y + z * z <= radius * radius + 1e-6


def divided(g, radius, threshold, margin):
    """Plain deconvolution in double precision on a grid wider by ``margin``."""
    padded = np.pad(g, margin)
    kernel = np.zeros(padded.shape)
    b = ball(radius) / ball(radius).sum()
    kernel[: b.shape[0], : b.shape[1], : b.shape[2]] = b
    kernel = np.roll(kernel, [-int(radius)] * 3, (0, 1, 2))
    divisor = 1 - np.fft.rfftn(kernel).real
    factor = np.where(divisor < threshold, 0, 1 / np.where(divisor == 0, 1, divisor))
    return np.fft.irfftn(np.fft.rfftn(padded) * factor, padded.shape, axes=(0, 1, 2))[(slice(margin, -margin),) * 3]


def test_sharp_is_the_plain_formula(case, plain_mean):
    parameters = SHARPParameters(radius=4.0, cutoff=0.0, threshold=0.05, harmonic_degree=-1, extension=False)
    local, kept = sharp(case.total, case.mask, case.grid, parameters)
    expected_kept = scipy.ndimage.binary_erosion(case.mask, ball(4))
    assert np.array_equal(kept, expected_kept)
    field = np.where(case.mask, case.total - case.total[case.mask].mean(), 0)
    g = (field - plain_mean(field, 4.0)) * kept
    expected = divided(g, 4.0, 0.05, 20) * kept
    # the truncated deconvolution kernel is long: two paddings differ at the level of its tail
    assert np.abs(local - expected).max() < 0.05 * np.abs(expected).max()
    assert np.corrcoef(local[kept], expected[kept])[0, 1] > 0.999


def test_vsharp_takes_the_largest_sphere_that_fits(case, plain_mean):
    parameters = VSHARPParameters(radius_max=5.0, radius_min=2.0, threshold=0.05, harmonic_degree=-1)
    local, kept = vsharp(case.total, case.mask, case.grid, parameters)
    field = np.where(case.mask, case.total - case.total[case.mask].mean(), 0)
    g, done = np.zeros(case.grid.shape), np.zeros(case.grid.shape, bool)
    for radius in (5.0, 4.0, 3.0, 2.0):
        fits = scipy.ndimage.binary_erosion(case.mask, ball(radius)) & ~done
        g[fits] = (field - plain_mean(field, radius))[fits]
        done |= fits
    assert np.array_equal(kept, done)
    expected = divided(g, 5.0, 0.05, 24) * kept
    assert np.abs(local - expected).max() < 0.05 * np.abs(expected).max()
    assert np.corrcoef(local[kept], expected[kept])[0, 1] > 0.999


@pytest.mark.parametrize("method", [sharp, vsharp])
def test_superposition(case, method):
    parts = [method(field, case.mask, case.grid)[0] for field in (case.local, case.background)]
    both = method(0.5 * case.local - 2 * case.background, case.mask, case.grid)[0]
    expected = 0.5 * parts[0] - 2 * parts[1]
    assert np.abs(both - expected).max() < 1e-4 * max(np.abs(case.background).max(), np.abs(expected).max())


@pytest.mark.parametrize("method", [sharp, vsharp])
def test_anisotropic_oblique_local_field_is_found(oblique_case, method):
    local, kept = method(oblique_case.total, oblique_case.mask, oblique_case.grid)
    assert oblique_case.error(local, kept) < 0.6


def test_the_cutoff_removes_low_frequencies_only(case):
    low = sharp(case.local, case.mask, case.grid, SHARPParameters(cutoff=0.05, harmonic_degree=-1))[0]
    full = sharp(case.local, case.mask, case.grid, SHARPParameters(cutoff=0.0, harmonic_degree=-1))[0]
    assert np.linalg.norm(low) < np.linalg.norm(full)


def test_radii():
    assert radii_between(6.0, 2.0, Grid((9, 9, 9))) == [6.0, 5.0, 4.0, 3.0, 2.0]
    assert radii_between(8.0, 1.0, Grid((9, 9, 9), (1.0, 1.0, 3.0)))[-1] == 3.0
    assert radii_between(2.0, 2.0, Grid((9, 9, 9))) == [2.0]
    with pytest.raises(ParameterError, match="radius_min"):
        radii_between(2.0, 3.0, Grid((9, 9, 9)))


def test_a_mask_thinner_than_the_sphere_is_refused(case):
    thin = case.mask.copy()
    thin[:, :, :15] = False
    thin[:, :, 20:] = False
    with pytest.raises(InputError, match="6 mm radius"):
        sharp(case.total, thin, case.grid)
    local, kept = vsharp(case.total, thin, case.grid)
    assert kept.any()
    assert not local[~kept].any()


def test_a_mask_that_fills_the_volume_is_eroded_from_its_edge():
    grid = Grid((17, 19, 23))
    parameters = SHARPParameters(radius=4.0, extension=False)
    _, kept = sharp(np.zeros(grid.shape, np.float32), np.ones(grid.shape, bool), grid, parameters)
    expected = np.zeros(grid.shape, bool)
    expected[4:-4, 4:-4, 4:-4] = True
    assert np.array_equal(kept, expected)
