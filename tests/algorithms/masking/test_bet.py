"""Brain extraction: spheres of known radius, shells, slabs, noise, bias, small digital heads, real heads."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms import parallel
from qsmxt.algorithms.masking.bet import BETParameters, bet
from qsmxt.algorithms.masking.plausibility import dice
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.phantom.head import HeadSettings, simulate

#: Radius of the brain, mm.
RADIUS = 50.0


def distances(grid: Grid, centre: tuple[float, float, float]) -> np.ndarray:
    x, y, z = (np.arange(n) * v - c for n, v, c in zip(grid.shape, grid.voxel_size, centre, strict=True))
    return np.sqrt(x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2)


def shells(distance: np.ndarray, noise: float = 0.02) -> np.ndarray:
    """Brain, dark skull of 7 mm, bright scalp of 8 mm, noise."""
    image = np.where(distance <= RADIUS, 1.0, 0.0)
    image[(distance > RADIUS + 7) & (distance <= RADIUS + 15)] = 1.5
    rng = np.random.default_rng(0)
    return np.abs(image + noise * (rng.normal(size=image.shape) + 1j * rng.normal(size=image.shape))).astype(np.float32)


def radius_of(mask: np.ndarray, grid: Grid) -> float:
    return float((mask.sum() * grid.voxel_volume * 3 / (4 * np.pi)) ** (1 / 3))


@pytest.mark.parametrize("size", [(2.0, 2.0, 2.0), (3.0, 3.0, 3.0), (1.5, 2.0, 4.0)])
def test_a_sphere_of_known_radius_off_centre(size):
    grid = Grid(tuple(round(150 / v) for v in size), size)
    distance = distances(grid, (70.0, 78.0, 73.0))
    mask = bet(shells(distance), grid)
    assert radius_of(mask, grid) == pytest.approx(RADIUS, abs=1.0)
    assert dice(mask, distance <= RADIUS) > 0.97
    assert not mask[distance > RADIUS + 5].any()


@pytest.mark.parametrize("clearance", [2.0, 4.0])
def test_clearance_keeps_its_distance_from_the_skull(clearance):
    grid = Grid((75, 75, 75), (2.0, 2.0, 2.0))
    image = shells(distances(grid, (75.0, 75.0, 75.0)))
    reach = radius_of(bet(image, grid), grid) - radius_of(bet(image, grid, BETParameters(clearance=clearance)), grid)
    assert reach == pytest.approx(clearance, abs=0.8)


def test_clearance_spares_a_brain_in_dark_fluid():
    grid = Grid((75, 75, 75), (2.0, 2.0, 2.0))
    distance = distances(grid, (75.0, 75.0, 75.0))
    image = shells(distance)
    image[(distance > RADIUS) & (distance <= RADIUS + 5)] = 0.55
    plain, clear = bet(image, grid), bet(image, grid, BETParameters(clearance=3.0))
    assert dice(plain, clear) > 0.985
    assert clear[distance <= RADIUS - 2].mean() > 0.995


def test_noise_and_bias_do_not_matter():
    grid = Grid((75, 75, 75), (2.0, 2.0, 2.0))
    distance = distances(grid, (75.0, 75.0, 75.0))
    slope = np.exp(np.linspace(-0.7, 0.7, 75))[:, None, None].astype(np.float32)
    assert dice(bet(shells(distance, 0.15), grid), distance <= RADIUS) > 0.97
    assert dice(bet(shells(distance) * slope, grid), distance <= RADIUS) > 0.97


def test_a_slab_is_cut_and_not_rounded_off():
    grid = Grid((75, 75, 12), (2.0, 2.0, 3.0))
    distance = distances(grid, (75.0, 75.0, 18.0))
    mask = bet(shells(distance), grid)
    assert dice(mask, distance <= RADIUS) > 0.95
    assert mask[37, 37].all()


def test_a_thick_neck_below_the_skull_is_left_out():
    grid = Grid((75, 75, 90), (2.0, 2.0, 2.0))
    distance = distances(grid, (75.0, 75.0, 115.0))
    x, y, z = np.indices(grid.shape) * 2.0
    neck = ((x - 75) ** 2 + (y - 75) ** 2 < 40**2) & (distance > RADIUS + 7) & (z < 115)
    image = shells(distance)
    image[neck] = 0.9
    assert dice(bet(image, grid), distance <= RADIUS) > 0.96


def test_without_background_everything_is_brain():
    rng = np.random.default_rng(0)
    crop = (1 + 0.1 * rng.normal(size=(30, 30, 20))).astype(np.float32)
    crop[14:16, :, 10:] = 0.6
    assert bet(crop, Grid(crop.shape)).all()


def test_a_larger_fraction_gives_a_smaller_brain():
    grid = Grid((50, 50, 50), (3.0, 3.0, 3.0))
    distance = distances(grid, (75.0, 75.0, 75.0))
    image = (1 / (1 + np.exp((distance - 45) / 6))).astype(np.float32)  # an edge as soft as can be
    sizes = [bet(image, grid, BETParameters(fraction=f)).sum() for f in (0.35, 0.5, 0.65, 0.8)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1.2 * sizes[-1]


def test_same_bytes_for_any_number_of_threads_and_any_scale():
    grid = Grid((38, 38, 38), (4.0, 4.0, 4.0))
    image = shells(distances(grid, (75.0, 75.0, 75.0)))
    masks = []
    try:
        for threads in (1, 2, 8):
            parallel.set_thread_count(threads)
            masks.append(bet(image, grid))
    finally:
        parallel.set_thread_count(None)
    assert all(np.array_equal(masks[0], mask) for mask in masks)
    np.testing.assert_array_equal(bet(1024 * image, grid), masks[0])


def test_an_image_without_contrast_is_refused():
    with pytest.raises(InputError, match="contrast"):
        bet(np.ones((10, 10, 10), dtype=np.float32), Grid((10, 10, 10)))


@pytest.mark.parametrize(
    "settings",
    [
        HeadSettings(voxel_size=(4, 4, 4), oversampling=1, echo_times=(0.005,), snr=100),
        HeadSettings(
            voxel_size=(4, 4, 4), oversampling=1, echo_times=(0.012,), snr=20, field_strength=7, deformation=1
        ),
    ],
    ids=["3T", "7T deformed noisy"],
)
def test_the_inside_of_the_skull_of_the_digital_head(settings):
    head = simulate(settings)
    inside = (head.labels != 0) & (head.labels != 12) & (head.labels != 13)
    assert dice(bet(head.magnitude[0], head.grid), inside) > 0.95


def test_a_real_t1_weighted_head(real_data):
    import nibabel as nib

    image = nib.load(real_data / "t1w-small-nibabel" / "someones_anatomy.nii.gz")
    grid = Grid.from_affine(image.affine, image.shape)
    mask = bet(image.get_fdata(dtype=np.float32), grid)
    # 1845 ml by a registered template mask; the surface stays off the orbits and the temporal muscles.
    assert 1700 < mask.sum() * grid.voxel_volume / 1000 < 2000
    assert mask[:, :, 0].sum() * 2.75**2 < 4000  # mm^2: the spinal canal and not the face


def test_a_strong_receive_field_on_a_real_t1_weighted_head(real_data):
    import nibabel as nib

    image = nib.load(real_data / "t1w-small-nibabel" / "someones_anatomy.nii.gz")
    grid = Grid.from_affine(image.affine, image.shape)
    head = image.get_fdata(dtype=np.float32)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in head.shape), indexing="ij", sparse=True)
    coil = np.exp(0.8 * sum(a**2 for a in axes)).astype(np.float32)  # nine times as bright in the corners
    plain, adapted = bet(head, grid), bet(coil * head, grid)
    assert dice(adapted, plain) > 0.92
    assert dice(bet(coil * head, grid, BETParameters(adapt=False)), plain) < 0.5
    np.testing.assert_array_equal(plain, bet(head, grid, BETParameters(adapt=False)))


def test_a_real_gradient_echo_slab_with_gaps(real_data):
    import nibabel as nib

    image = nib.load(real_data / "head-ge-b0map-invivo" / "Ref" / "GE_6_CV_Neuro_HH_Adv.nii")
    grid = Grid.from_affine(image.affine, image.shape)
    mask = bet(image.get_fdata(dtype=np.float32), grid)
    assert 1500 < mask.sum() * grid.voxel_volume / 1000 < 1900


@pytest.mark.parametrize("order", [(1, 2, 0), (0, 2, 1)])
def test_the_order_of_the_axes_does_not_matter(order):
    grid = Grid((38, 42, 36), (4.0, 4.0, 4.0))
    distance = distances(grid, (70.0, 82.0, 72.0))
    image, turned = shells(distance), shells(distance).transpose(order)
    other = Grid(turned.shape, (4.0, 4.0, 4.0))
    assert dice(bet(np.ascontiguousarray(turned), other), bet(image, grid).transpose(order)) > 0.99


def test_one_slice():
    grid = Grid((75, 75, 1), (2.0, 2.0, 5.0))
    distance = distances(grid, (75.0, 75.0, 0.0))
    assert dice(bet(shells(distance), grid), distance <= RADIUS) > 0.95
