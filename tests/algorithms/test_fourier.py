"""Transforms: closed forms and conservation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from qsmxt.algorithms import fourier, parallel
from qsmxt.geometry import Grid

SHAPES = [(8, 6, 10), (7, 5, 9), (1, 4, 5), (13, 1, 2)]


@pytest.fixture(params=["scipy", "ducc0"])
def library(request, monkeypatch):
    """Each library that may do the transforms."""
    if request.param == "scipy":
        monkeypatch.setattr(fourier, "ducc0", None)
    else:
        assert fourier.ducc0 is not None, "the extra `fast` is part of what tests need"


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_the_sum_over_plane_waves(shape):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    waves = [np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in shape]
    waves[2] = waves[2][: shape[2] // 2 + 1]
    np.testing.assert_allclose(fourier.forward(x), np.einsum("xyz,ax,by,cz->abc", x, *waves), atol=2e-5)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", SHAPES)
def test_inverse_undoes_forward(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    spectrum = fourier.forward(x)
    assert spectrum.dtype == np.complex64
    back = fourier.inverse(spectrum, shape)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, x, atol=2e-6)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", [(40, 9, 10), (7, 5, 9), (1, 4, 5)])
def test_transforms_that_know_where_a_volume_is_zero_are_the_same(shape):
    rng = np.random.default_rng(3)
    mask = np.zeros(shape, dtype=bool)
    mask[shape[0] // 4 : -(shape[0] // 8) or None, 1:-1, 2:4] = True
    support = fourier.Support.of(mask)
    x = (rng.standard_normal(shape) * mask).astype(np.float32)
    transfer = np.abs(fourier.forward(rng.standard_normal(shape).astype(np.float32)))
    spectrum = fourier.forward(x, support)
    np.testing.assert_allclose(spectrum, fourier.forward(x), atol=2e-5)
    np.testing.assert_allclose(fourier.inverse(spectrum, shape, support)[mask], x[mask], atol=2e-6)
    product = fourier.inverse(fourier.forward(x) * transfer, shape)
    np.testing.assert_allclose(fourier.filtered(x, transfer), product, atol=1e-4)
    inside = fourier.filtered(x, transfer, support, support)
    np.testing.assert_allclose(inside[mask], product[mask], atol=1e-4)
    assert not inside[~np.broadcast_to(mask.any(axis=(0, 2))[:, None], shape)].any()
    np.testing.assert_allclose(fourier.filtered(x, transfer, support, out=x), product, atol=1e-4)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", [(40, 9, 10), (7, 5, 9), (1, 4, 5)])
def test_a_weighted_filter_and_its_passes_do_what_the_steps_do(shape):
    """Weights between two filters; a volume that is made as it is transformed, and a sum over the result."""
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2, *shape)).astype(np.float32)
    weights = rng.random(shape).astype(np.float32)
    weights[:, :2] = 0
    weights[shape[0] // 2 :, -1:] = 0
    transfer = fourier.forward(rng.standard_normal(shape).astype(np.float32)).real
    made, seen = np.empty_like(x), {}

    def make(start, stop):
        made[start:stop] = 2 * x[start:stop]

    def use(start, stop, result):
        seen[start] = float((result[start:stop] * y[start:stop]).sum())

    once = 2 * fourier.inverse(fourier.forward(x) * transfer, shape)
    twice = fourier.inverse(fourier.forward(once * weights) * transfer, shape)
    for support in (None, fourier.Support.of(weights > 0)):
        found = fourier.weighted(made, transfer, weights, support, make=make, use=use)
        np.testing.assert_allclose(found, twice, atol=1e-5 * np.abs(twice).max())
        assert sum(seen.values()) == pytest.approx(float((found * y).sum()), rel=1e-4)
        made[:] = 0
    found = fourier.filtered(made, transfer, make=make, use=use)
    np.testing.assert_allclose(found, once, atol=1e-5 * np.abs(once).max())
    assert sum(seen.values()) == pytest.approx(float((found * y).sum()), rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_energy_is_conserved_with_the_weights_of_the_half_spectrum(shape):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    weights = fourier.spectrum_weights(Grid(shape))
    energy = np.sum(weights * np.abs(fourier.forward(x).astype(np.complex128)) ** 2) / x.size
    assert energy == pytest.approx(np.sum(x.astype(np.float64) ** 2), rel=1e-5)


def test_a_plane_wave_has_its_frequency_in_cycles_per_mm():
    grid = Grid((8, 10, 12), (0.5, 1.0, 2.0))
    x = np.arange(8)[:, None, None] * 0.5
    z = np.arange(12)[None, None, :] * 2.0
    wave = np.cos(2 * np.pi * (0.25 * x + 0.125 * z)) + np.zeros(grid.shape)
    power = np.abs(fourier.forward(wave.astype(np.float32)))
    i, j, k = np.unravel_index(power.argmax(), power.shape)
    kx, ky, kz = fourier.frequencies(grid)
    assert (abs(kx[i, 0, 0]), abs(ky[0, j, 0]), kz[0, 0, k]) == pytest.approx((0.25, 0.0, 0.125))
    assert power.max() == pytest.approx(wave.size / 2, rel=1e-5)


@pytest.mark.parametrize("length", [1, 2, 11, 97, 128, 251])
def test_fast_lengths_have_small_prime_factors_and_are_the_next(length):
    fast = fourier.fast_length(length)
    assert fast == scipy.fft.next_fast_len(length, real=True) >= length
    even = fourier.fast_length(length, even=True)
    assert even >= fast
    assert even % 2 == 0 or even == 1


def test_fast_shape_leaves_the_margin():
    assert all(n >= s + 3 for n, s in zip(fourier.fast_shape((11, 13, 17), (3, 3, 3)), (11, 13, 17), strict=True))


def test_filtered_by_one_is_the_volume():
    x = np.random.default_rng(2).standard_normal((6, 7, 8)).astype(np.float32)
    np.testing.assert_allclose(fourier.filtered(x, np.ones((6, 7, 5), np.float32)), x, atol=2e-6)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", [(36, 45, 40), (48, 60, 54)])
def test_same_bytes_for_any_number_of_threads(shape):
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    results = []
    for threads in (1, 2, 8):
        parallel.set_thread_count(threads)
        results.append(fourier.inverse(fourier.forward(x), x.shape).tobytes())
    parallel.set_thread_count(None)
    assert results[0] == results[1] == results[2]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_complex_transform_in_place_is_the_sum_over_plane_waves_and_is_undone(shape):
    parts = np.random.default_rng(2).standard_normal((2, *shape)).astype(np.float32)
    x = parts[0] + 1j * parts[1]
    waves = [np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in shape]
    spectrum = x.copy()
    for axes in (fourier.PLANE, fourier.ACROSS):
        fourier.transform(spectrum, axes, True)
    np.testing.assert_allclose(spectrum, np.einsum("xyz,ax,by,cz->abc", x, *waves), atol=2e-5)
    for row in range(shape[1]):
        fourier.transform(spectrum[:, row : row + 1], fourier.ACROSS, False)
    fourier.transform(spectrum, fourier.PLANE, False)
    np.testing.assert_allclose(spectrum, x, atol=2e-6)
