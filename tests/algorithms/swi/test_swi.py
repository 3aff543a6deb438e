"""Susceptibility-weighted images: veins are dark, backgrounds vanish, projections keep their geometry."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from qsmxt.algorithms import parallel
from qsmxt.algorithms.swi import clearswi, homodyne, smwi
from qsmxt.algorithms.swi.clearswi import softplus
from qsmxt.algorithms.swi.highpass import box_halves, combined_frequency
from qsmxt.algorithms.swi.phase_mask import phase_mask
from qsmxt.algorithms.swi.projection import half_window, minimum_intensity_projection
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.registry.methods import lookup

SHAPE = (40, 44, 12)
GRID = Grid(SHAPE, (1.0, 1.0, 2.0))
TIMES = np.array([0.006, 0.013, 0.019])


def _vein(shape=SHAPE):
    out = np.zeros(shape, dtype=bool)
    out[20, 22, :] = True
    return out


def _data(frequency, shape=SHAPE):
    """Phase of ``frequency`` (Hz) and a decaying magnitude."""
    phase = 2 * np.pi * TIMES[:, None, None, None] * frequency
    magnitude = 100 * np.exp(-30 * TIMES)[:, None, None, None] * np.ones((1, *shape))
    return phase.astype(np.float32), magnitude.astype(np.float32)


def unwrapped(phase, magnitude, times, grid):
    """ROMEO, individual echoes in time."""
    arrays = {"offset_free_phase": phase, "wrapped_phase": phase, "magnitude": magnitude, "echo_times": times}
    return lookup("unwrapping", "romeo").run(arrays, grid)["unwrapped_phase"]


def _settings(function, **values):
    return function.method.configure(values)


def test_frequency_of_a_thin_source_survives_and_the_background_vanishes():
    x, y, _ = np.meshgrid(*[np.arange(n, dtype=float) for n in SHAPE], indexing="ij")
    mask = np.ones(SHAPE, dtype=bool)
    phase, magnitude = _data(10.0 * _vein() + 0.5 * x - 0.3 * y)
    phase += 1.3
    found = combined_frequency(list(zip(phase, magnitude, strict=True)), TIMES, mask, (4.0, 4.0))
    core = (slice(14, 26), slice(14, 30))
    peak = 1 / (2 * np.pi * 16)
    np.testing.assert_allclose(found[20, 22], 10 * (1 - peak), rtol=0.01)
    beside = found[core][~_vein()[core]]
    assert np.abs(beside).max() < 10 * peak * 1.05
    assert np.abs(found[12:14, 14:30]).max() < 0.03


def test_filter_is_the_masked_gaussian():
    rng = np.random.default_rng(0)
    phase = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2).astype(np.float32)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[3:35, 5:40, 1:] = rng.random((32, 35, 11)) < 0.9
    mask[3, 5, 1] = True
    ones = np.ones(SHAPE, dtype=np.float32)
    found = combined_frequency([(phase, ones)], np.array([1 / (2 * np.pi)]), mask, (4.0, 2.0))
    smooth = [
        ndimage.gaussian_filter(v, (4, 2, 0), mode="constant", truncate=6)
        for v in (np.where(mask, phase, 0).astype(float), mask.astype(float))
    ]
    expected = np.where(mask, phase - smooth[0] / np.where(mask, smooth[1], 1), 0)
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("sigma", [0.0, 0.7, 1.0, 2.3, 4.0, 11.0])
def test_three_boxes_have_the_variance_of_the_gaussian(sigma):
    variance = sum(((2 * h + 1) ** 2 - 1) / 12 for h in box_halves(sigma))
    assert abs(variance - sigma**2) <= (sigma + 1) / 2


@pytest.mark.parametrize("kind", ["tanh", "negative_tanh", "positive", "negative", "triangular"])
def test_phase_masks_are_what_they_say(kind):
    phase = np.linspace(-3, 3, 1001, dtype=np.float32).reshape(1, 1, -1)
    weight = phase_mask(phase, np.ones(phase.shape, dtype=bool), kind, 2.0).ravel()
    x = phase.ravel() * (-1 if kind.startswith("negative") else 1)
    top = np.quantile(x[x > 0], 0.99)
    if kind.endswith("tanh"):
        expected = 0.5 * (1 + np.tanh(1 - x / (5 * np.median(x[x > 0]))))
    elif kind == "triangular":
        expected = np.clip(1 - np.abs(x) / top, 0, 1) ** 2
    else:
        expected = np.where(x > 0, np.clip(1 - x / top, 0, 1) ** 2, 1)
    np.testing.assert_allclose(weight, expected, atol=2e-6)


def test_softplus_is_the_published_function():
    image = np.linspace(0, 300, 1000, dtype=np.float32).reshape(10, 10, 10)
    found = softplus(image, np.ones(image.shape, dtype=bool))
    offset = np.percentile(image, 80) / 2
    factor = 2 / offset
    expected = (np.logaddexp(0, factor * (image - offset)) - np.logaddexp(0, -factor * offset)) / factor
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(("sign", "dark"), [(1, True), (-1, False)])
def test_only_paramagnetic_veins_are_dark(sign, dark):
    mask = np.ones(SHAPE, dtype=bool)
    phase, magnitude = _data(sign * 30.0 * _vein())
    swi, projection = clearswi(phase, magnitude, TIMES, mask, GRID)
    tissue = np.median(swi)
    assert (swi[20, 22, 4:8] < 0.5 * tissue).all() == dark
    assert (projection[20, 22] < 0.5 * tissue).all() == dark
    opposite = clearswi(phase, magnitude, TIMES, mask, GRID, _settings(clearswi, phase_mask="negative_tanh"))[0]
    assert (opposite[20, 22, 4:8] < 0.5 * np.median(opposite)).all() == (not dark)


def test_clearswi_does_not_see_offsets_and_the_scale_of_the_magnitude():
    mask = np.ones(SHAPE, dtype=bool)
    rng = np.random.default_rng(1)
    phase, magnitude = _data(20.0 * ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1))
    plain = clearswi(phase, magnitude, TIMES, mask, GRID)[0]
    shifted = clearswi(phase + np.array([0.3, -1, 7], np.float32)[:, None, None, None], magnitude, TIMES, mask, GRID)[0]
    np.testing.assert_allclose(shifted, plain, rtol=2e-3)
    np.testing.assert_allclose(clearswi(phase, 8 * magnitude, TIMES, mask, GRID)[0], 8 * plain, rtol=1e-4)


def test_homodyne_is_the_magnitude_where_the_phase_is_smooth():
    x = np.arange(SHAPE[0])[:, None, None] * np.ones(SHAPE)
    smooth = 3 * np.sin(2 * np.pi * x / SHAPE[0])
    phase = np.angle(np.exp(1j * smooth))[None].astype(np.float32)
    magnitude = np.full((1, *SHAPE), 50, dtype=np.float32)
    vein = phase.copy()
    vein[:, _vein()] += 1.0
    mask = np.ones(SHAPE, dtype=bool)
    grid = Grid(SHAPE, (0.5, 0.5, 2.0))
    settings = _settings(homodyne, cutoff=0.5)
    plain = homodyne(phase, magnitude, TIMES[:1], mask, grid, settings)[0]
    assert plain.min() > 0.8 * 50 and plain.max() <= 50.001
    dark = homodyne(vein, magnitude, TIMES[:1], mask, grid, settings)[0]
    np.testing.assert_allclose(dark[_vein()] / plain[_vein()], (1 - 1 / np.pi) ** 4, rtol=0.25)
    assert np.abs(dark[:10] / plain[:10] - 1).max() < 0.05


def test_smwi_is_its_closed_form():
    chi = np.linspace(-1, 1.5, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE)
    magnitude = np.full((2, *SHAPE), 3, dtype=np.float32)
    mask = chi > -0.9
    weight = np.clip(1 - chi / 0.5, 0, 1) ** 2 * mask
    swi, _ = smwi(magnitude, chi, mask, GRID, _settings(smwi, threshold=0.5, power=2.0))
    np.testing.assert_allclose(swi, np.sqrt(18) * weight, atol=1e-5)
    mirrored, _ = smwi(magnitude, -chi, mask, GRID, _settings(smwi, threshold=0.5, power=2.0, darken="diamagnetic"))
    np.testing.assert_array_equal(mirrored, swi)


@pytest.mark.parametrize("thickness", [1.0, 6.0, 11.0, 100.0])
def test_projection_is_the_minimum_over_slices_in_place(thickness):
    rng = np.random.default_rng(2)
    image = rng.random(SHAPE, dtype=np.float32)
    mask = rng.random(SHAPE) < 0.8
    found = minimum_intensity_projection(image, mask, GRID, thickness)
    half = half_window(thickness, 2.0)
    assert abs((2 * half + 1) * 2.0 - thickness) <= 2.0
    for z in range(SHAPE[2]):
        part = slice(max(0, z - half), z + half + 1)
        lowest = np.where(mask[:, :, part], image[:, :, part], np.inf).min(axis=2)
        np.testing.assert_array_equal(found[:, :, z], np.where(mask[:, :, z], lowest, 0))


def test_slices_lie_along_the_thickest_side_or_b0():
    assert Grid(SHAPE, (1, 3, 1)).slice_axis == 1
    assert Grid(SHAPE, (1, 1, 1), (0.9, 0.1, 0.3)).slice_axis == 0
    assert Grid(SHAPE, (1, 1.05, 1), (0, 0.1, 0.9)).slice_axis == 2


@pytest.mark.parametrize("function", [clearswi, homodyne])
def test_axes_may_be_permuted(function):
    rng = np.random.default_rng(3)
    phase, magnitude = _data(20.0 * ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1))
    mask = np.ones(SHAPE, dtype=bool)
    settings = _settings(function, sensitivity=0.0) if function is clearswi else function.method.configure()
    expected = function(phase, magnitude, TIMES, mask, GRID, settings)
    turned = Grid((12, 40, 44), (2.0, 1.0, 1.0), (1, 0, 0))
    arrays = [np.ascontiguousarray(np.moveaxis(v, 3, 1)) for v in (phase, magnitude)]
    found = function(*arrays, TIMES, np.moveaxis(mask, 2, 0), turned, settings)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.moveaxis(a, 0, 2), b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("function", [clearswi, homodyne])
def test_outside_the_mask_is_zero_and_does_not_matter(function):
    phase, magnitude = _data(10.0 * _vein())
    mask = np.zeros(SHAPE, dtype=bool)
    mask[10:30, 12:34, 2:10] = True
    clean = function(phase, magnitude, TIMES, mask, GRID)
    assert not any(v[~mask].any() for v in clean) and clean[0][mask].min() > 0
    if function is clearswi:
        phase[:, ~mask] = np.nan
        for a, b in zip(function(phase, magnitude, TIMES, mask, GRID), clean, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("function", [clearswi, homodyne])
def test_bad_input_is_named(function):
    phase, magnitude = _data(np.zeros(SHAPE))
    mask = np.ones(SHAPE, dtype=bool)
    with pytest.raises(InputError, match="empty mask"):
        function(phase, magnitude, TIMES, ~mask, GRID)
    with pytest.raises(InputError, match=r"phase: expected shape"):
        function(phase[:, 1:], magnitude, TIMES, mask, GRID)
    with pytest.raises(InputError, match="milliseconds"):
        function(phase, magnitude, TIMES * 1000, mask, GRID)
    if function is clearswi:
        phase[0, 20, 20, 5] = np.nan
        with pytest.raises(InputError, match=r"unwrapped_phase.*finite"):
            function(phase, magnitude, TIMES, mask, GRID)
    else:
        with pytest.raises(InputError, match="up to 3"):
            function(phase, magnitude, TIMES, mask, GRID, _settings(function, echo=4))


def test_veins_of_a_real_brain_are_darker_than_in_the_magnitude(real_data):
    """Three echoes in vivo; voxels of the highest local frequency are veins."""
    folder = real_data / "brain-crop-gre-3echo"
    image = nib.load(folder / "Mag.nii")
    magnitude = np.moveaxis(image.get_fdata(dtype=np.float32), 3, 0)
    phase = np.moveaxis(nib.load(folder / "Phase.nii").get_fdata(dtype=np.float32), 3, 0)
    phase *= np.pi / np.abs(phase).max()
    grid, times = Grid.from_affine(image.affine, image.shape), np.array([0.004, 0.008, 0.012])
    mask = np.ones(grid.shape, dtype=bool)
    mask[..., :12] = False  # air below the block
    flat = unwrapped(phase, magnitude, times, grid)
    frequency = combined_frequency(list(zip(flat, magnitude, strict=True)), times, mask, (8.0, 8.0))
    vein = mask & (frequency > np.quantile(frequency[mask], 0.99))
    ratios = []
    for swi in (clearswi(flat, magnitude, times, mask, grid)[0], homodyne(phase, magnitude, times, mask, grid)[0]):
        ratios.append(swi[vein].mean() / np.median(swi[mask]))
    plain = np.sqrt((magnitude**2).sum(axis=0))
    assert max(ratios) < 0.8 * plain[vein].mean() / np.median(plain[mask])


@pytest.mark.parametrize("function", [clearswi, homodyne])
def test_same_bytes_for_any_number_of_threads(function):
    rng = np.random.default_rng(4)
    phase, magnitude = _data(20.0 * rng.standard_normal(SHAPE))
    mask = rng.random(SHAPE) < 0.9
    results = []
    try:
        for threads in (1, 2, 8):
            parallel.set_thread_count(threads)
            results.append(b"".join(v.tobytes() for v in function(phase, magnitude, TIMES, mask, GRID)))
    finally:
        parallel.set_thread_count(None)
    assert results[0] == results[1] == results[2]
