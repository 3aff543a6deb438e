"""Slices of 20 mm with pixels of 1 mm: what is a dipole, a sphere or a length in mm stays one, for every method.

Each method gets the same object twice, in cubes of 2 mm and in voxels of 1 x 1 x 20 mm, with the field that the object
has there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest

from qsmxt.algorithms import fourier, kernels
from qsmxt.algorithms.metrics import nrmse
from qsmxt.constants import rad_per_ppm
from qsmxt.errors import InputError
from qsmxt.geometry import Grid
from qsmxt.phantom.example import DIRECTIONS, ECHO_TIMES, FIELD_STRENGTH
from qsmxt.registry.methods import Method
from tests.contracts.test_methods import GRID as EXAMPLE
from tests.contracts.test_methods import METHODS, PARAMETERS, arrays, inputs, names, plain, run

SHAPE = (44, 48, 8)
CUBES, THICK = Grid(SHAPE, (2.0, 2.0, 2.0)), Grid(SHAPE, (1.0, 1.0, 20.0))
#: The phantom of the contracts in thick slices.
THICK_EXAMPLE = Grid(EXAMPLE.shape, THICK.voxel_size)
#: Centre (voxels from the middle), radii in the plane and across (voxels), susceptibility (ppm).
BALLS = (((-7, 4, 0), (5, 1.2), 0.15), ((7, -5, 0.5), (6, 1.6), -0.1), ((2, 9, -1), (4, 1.1), 0.08))


def ids(method: Method) -> str:
    return method.name


def of(*stages: str) -> list[Method]:
    return [method for method in METHODS.values() if method.stage in stages]


def _coordinates(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels from the middle."""
    x, y, z = (np.arange(n) - (n - 1) / 2 for n in grid.shape)
    return x[:, None, None], y[None, :, None], z[None, None, :]


@cache
def _object() -> tuple[np.ndarray, np.ndarray]:
    """Mask and susceptibility (ppm)."""
    x, y, z = _coordinates(CUBES)
    mask = (x / 19) ** 2 + (y / 21) ** 2 + (z / 3.6) ** 2 <= 1
    chi = np.zeros(SHAPE, dtype=np.float32)
    for (a, b, c), (plane, across), value in BALLS:
        chi[((x - a) / plane) ** 2 + ((y - b) / plane) ** 2 + ((z - c) / across) ** 2 <= 1] = value
    return mask, chi * mask


def _field(grid: Grid) -> np.ndarray:
    """Field (ppm) of the object with nothing around."""
    padded = np.pad(_object()[1], [(0, n) for n in SHAPE])
    whole = fourier.filtered(padded, kernels.dipole(grid.with_shape(padded.shape), "greens"))
    return whole[: SHAPE[0], : SHAPE[1], : SHAPE[2]]


def _background(grid: Grid) -> np.ndarray:
    """Harmonic polynomial, 0.04 ppm from the middle to the sides."""
    x, y, z = (c * v for c, v in zip(_coordinates(grid), grid.voxel_size, strict=True))
    a, b, c = (n * v / 2 for n, v in zip(SHAPE, grid.voxel_size, strict=True))
    return 0.04 * x / a - 0.03 * z / c + 0.03 * (x * x - y * y) / a**2 + 0.02 * y * z / (b * c)


@cache
def _arrays(grid: Grid) -> Mapping[str, np.ndarray]:
    """Fields, phases and rates of the object."""
    mask, chi = _object()
    local, background = _field(grid), _background(grid)
    total = local + background
    slopes = np.array([rad_per_ppm(FIELD_STRENGTH, time) for time in ECHO_TIMES])[:, None, None, None]
    phase = np.angle(np.exp(1j * slopes * total)).astype(np.float32)
    r2star = (20 + 100 * np.abs(chi)) * mask
    turned = [Grid(grid.shape, grid.voxel_size, direction) for direction in DIRECTIONS]
    floats = {
        "local_field": local * mask, "total_field": total * mask, "chi": chi, "r2star": r2star,
        "oriented_fields": np.stack([_field(one) * mask for one in turned]),
        "magnitude": np.exp(-np.array(ECHO_TIMES)[:, None, None, None] * (20 + 100 * np.abs(chi))) * (0.05 + mask),
        "wrapped_phase": phase, "offset_free_phase": phase,
    }  # fmt: skip
    made = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in floats.items()}
    return made | {
        "mask": mask, "echo_times": np.array(ECHO_TIMES), "field_strength": np.float64(FIELD_STRENGTH),
        "b0_directions": np.array(DIRECTIONS),
    }  # fmt: skip


def _run(method: Method, grid: Grid, **replaced: np.ndarray) -> dict[str, np.ndarray]:
    given = {name: np.array({**_arrays(grid), **replaced}[name]) for name in names(method)}
    if "field_strength" in given:
        given["field_strength"] = FIELD_STRENGTH
    return run(method, given, grid)


#: Erodes six voxels, more than there are slices.
ERODING = {"inversion.tgv_phase": {"erosions": 0}}


@pytest.mark.parametrize("method", of("inversion"), ids=ids)
def test_inversions_find_the_object_as_well_as_in_cubes(method: Method, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PARAMETERS, method.name, {**PARAMETERS[method.name], **ERODING.get(method.name, {})})
    mask, chi = _object()
    cubes, thick = (nrmse(_run(method, grid)["chi"], chi, mask) for grid in (CUBES, THICK))
    assert thick <= max(2 * cubes, 10) and thick < 65


#: Methods that average over spheres, of which there are none within four slices.
SPHERES = ("background.ismv", "background.vsharp", "background.resharp", "background.sharp")


@pytest.mark.parametrize("method", of("background"), ids=ids)
def test_a_harmonic_background_is_removed(method: Method, monkeypatch: pytest.MonkeyPatch):
    """To rounding, but for iterations that end at a tolerance."""
    background = _background(THICK)
    slopes = np.array([rad_per_ppm(FIELD_STRENGTH, time) for time in ECHO_TIMES])[:, None, None, None]
    alone = {
        "total_field": (background * _object()[0]).astype(np.float32),
        "offset_free_phase": np.angle(np.exp(1j * slopes * background)).astype(np.float32),
    }
    if method.name in SPHERES:
        with pytest.raises(InputError, match=r"mask: expected a region wider than spheres of 20 mm radius.*; take"):
            _run(method, THICK, **alone)
        return
    closer = {"tolerance": 1e-4, "iterations": 400} if method.key == "pdf" else {}
    monkeypatch.setitem(PARAMETERS, method.name, {**PARAMETERS[method.name], **closer})
    made = _run(method, THICK, **alone)
    kept = made["eroded_mask"]
    limit = {"pdf": 0.01, "msmv": 0.03}.get(method.key, 1e-5)
    assert kept.sum() >= 0.5 * _object()[0].sum()
    assert made["local_field"][kept].std() <= limit * background[kept].std()


#: Methods that look at one voxel only, or follow neighbours whatever their distance.
NOT_SPATIAL = [
    "offset.none", "unwrapping.romeo", "field.linear_fit", "field.nonlinear_fit", "field.weighted_fit",
    "masking.otsu", "masking.gaussian", "masking.gmm", "masking.percentile", "masking.value", "masking.largest",
    "masking.fill", "masking.snr", "merging.echo_mean", "referencing.csf", "referencing.mean", "referencing.none",
    "referencing.region", "relaxometry.arlo", "relaxometry.loglinear", "relaxometry.nonlinear",
    "relaxometry.numart2star", "spinecho.epg", "separation.closedform", "separation.decompose", "separation.hcchisep",
    "separation.r2starqsm", "separation.wavesep",
]  # fmt: skip


@pytest.mark.parametrize("name", NOT_SPATIAL)
def test_methods_that_know_no_distance_do_not_see_the_voxel_size(name: str):
    made = run(METHODS[name], inputs(names(METHODS[name])), THICK_EXAMPLE)
    for product, value in plain(name).items():
        np.testing.assert_array_equal(made[product], value)


def _phase_error(found: np.ndarray, true: np.ndarray) -> float:
    """Spread of a difference of phases about its mean, rad."""
    turned = np.exp(1j * (found - true))[..., arrays()["mask"]]
    return float(np.abs(np.angle(turned * np.conj(turned.mean(axis=-1, keepdims=True)))).mean())


@pytest.mark.parametrize("name", ["combination.mcpc3ds", "combination.aspire", "offset.mcpc3ds"])
def test_offsets_are_removed_as_well_as_in_cubes(name: str):
    method = METHODS[name]
    true = arrays()["offset_free_phase"]
    cubes = plain(name)[method.produces[0]]
    thick = run(method, inputs(names(method)), THICK_EXAMPLE)[method.produces[0]]
    assert _phase_error(thick, true) <= 1.5 * _phase_error(cubes, true) + 0.01


@pytest.mark.parametrize("name", ["unwrapping.laplacian", "field.joint_fit"])
def test_field_and_phase_are_as_right_as_in_cubes(name: str):
    """``laplacian`` without noise; ``joint_fit`` with the noise and the offset of the phantom."""
    method, mask = METHODS[name], arrays()["mask"]
    product = method.produces[0]
    errors = []
    for grid in (EXAMPLE, THICK_EXAMPLE):
        made = run(method, inputs(names(method)), grid)[product].reshape(-1, *grid.shape)
        true = arrays()[product].reshape(-1, *grid.shape)
        difference = (made - true)[:, mask]
        errors.append(float((difference - difference.mean(axis=1, keepdims=True)).std() / true[:, mask].std()))
    assert errors[1] <= 1.5 * errors[0] + 0.01, errors


@pytest.mark.parametrize("key", ["erode", "dilate", "open", "close"])
def test_a_radius_below_the_distance_of_slices_works_within_them(key: str):
    """3 mm: every slice as if it were alone."""
    method = METHODS[f"masking.{key}"]
    mask = _object()[0].copy()
    mask[20:23, 20:22, 3] = mask[2:4, 8, 5] = False
    mask[1, 24, 4] = True
    made = method.run({"mask": mask}, THICK, {"radius": 3.0})["mask"]
    one = THICK.with_shape((*SHAPE[:2], 1))
    for z in range(SHAPE[2]):
        alone = method.run({"mask": mask[..., z : z + 1]}, one, {"radius": 3.0})["mask"]
        np.testing.assert_array_equal(made[..., z : z + 1], alone)
    assert made.any() and not np.array_equal(made, mask)


@pytest.mark.parametrize(
    "name", [f"masking.{key}" for key in ("hagberg", "quality", "robust", "smooth", "trim", "bet")]
)
def test_masks_are_as_good_as_in_cubes(name: str):
    """By their Dice with the true mask."""
    method, true = METHODS[name], arrays()["mask"]
    if name == "masking.bet":
        image = np.where(_object()[0], 1.0, 0.05).astype(np.float32)
        cubes, thick = (_dice(run(method, {"mask_input": image}, g)["mask"], _object()[0]) for g in (CUBES, THICK))
        assert thick > max(cubes, 0.75), "a slab of 40 x 40 x 160 mm is no brain"
        return
    cubes = _dice(plain(name)["mask"], true)
    assert _dice(run(method, inputs(names(method)), THICK_EXAMPLE)["mask"], true) >= cubes - 0.05


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_fluid_around_the_brain_is_peeled_off_within_thick_slices():
    grid = Grid((60, 60, 6), THICK.voxel_size)
    x, y, z = _coordinates(grid)
    radius = np.sqrt(x**2 + y**2) + 0 * z
    mask = (radius <= 27) & (np.abs(z) < 2)
    rate, times = np.where(radius > 23, 4.0, 18.0), np.array(ECHO_TIMES)
    signal = np.exp(-times[:, None, None, None] * rate) * (0.001 + mask)
    made = METHODS["masking.peel"].run({"mask": mask, "magnitude": signal, "echo_times": times}, grid)["mask"]
    assert made[mask & (radius < 21)].all() and not made[radius > 24.5].any()


def test_fluid_of_ventricles_is_found_in_thick_slices():
    x, y, z = _coordinates(THICK)
    fluid = ((x / 6) ** 2 + (y / 8) ** 2 <= 1) & (np.abs(z) < 2)
    rate = np.where(fluid, 4.0, 18.0)
    times = np.array(ECHO_TIMES)
    made = METHODS["masking.ventricles"].run(
        {"magnitude": np.exp(-times[:, None, None, None] * rate), "echo_times": times, "mask": _object()[0]},
        THICK, {"depth": 5.0},
    )["csf_mask"]  # fmt: skip
    assert not (made & ~fluid).any() and made.sum() > 0.5 * fluid.sum()


def test_a_receive_field_is_evened_out_in_thick_slices():
    x, _, _ = _coordinates(THICK)
    mask = _object()[0]
    image = np.where(mask, 1.0 + 0.01 * x, 0.01).astype(np.float32)
    made = METHODS["masking.homogeneity"].run({"combined_magnitude": image}, THICK)["homogeneous_magnitude"]
    assert made[mask].std() / made[mask].mean() < 0.6 * image[mask].std() / image[mask].mean()


def test_two_passes_hand_over_between_their_maps_only():
    method = METHODS["merging.two_pass"]
    given = inputs(names(method))
    made = run(method, given, THICK_EXAMPLE)["chi"]
    apart = np.abs(given["reliable_chi"] - given["filled_chi"]).max()
    assert not made[~given["mask"]].any()
    assert np.abs(made - given["filled_chi"])[given["mask"]].max() <= 2 * apart
    holes = given["mask"] & ~given["reliable_mask"]
    np.testing.assert_array_equal(made[holes], given["filled_chi"][holes])


@pytest.mark.parametrize("method", of("swi"), ids=ids)
def test_a_projection_thinner_than_a_slice_is_the_image(method: Method):
    made = run(method, inputs(names(method)), THICK_EXAMPLE)
    np.testing.assert_array_equal(made["minimum_intensity_projection"], made["swi"] * arrays()["mask"])
    nothing = {
        name: 0 * v if name.endswith("phase") or name == "chi" else v for name, v in inputs(names(method)).items()
    }
    assert made["swi"][arrays()["mask"]].sum() < run(method, nothing, THICK_EXAMPLE)["swi"][arrays()["mask"]].sum()


def test_separated_sources_add_up_to_the_object_as_well_as_in_cubes():
    method = METHODS["separation.chiseparation"]
    mask, chi = _object()
    errors = []
    for grid in (CUBES, THICK):
        made = _run(method, grid)
        errors.append(nrmse(made["chi_paramagnetic"] + made["chi_diamagnetic"], chi, mask))
    assert errors[1] <= max(2 * errors[0], 10)


@pytest.mark.parametrize(("key", "product"), [("cosmos", "orientation_chi"), ("sti", "tensor_mean")])
def test_several_orientations_find_the_object_as_well_as_in_cubes(key: str, product: str):
    method, (mask, chi) = METHODS[f"orientation.{key}"], _object()
    cubes, thick = (nrmse(_run(method, grid)[product], chi, mask) for grid in (CUBES, THICK))
    assert thick <= max(2 * cubes, 10)


def test_every_method_is_here():
    tested = {method.name for method in of("inversion", "background", "swi", "orientation")} | set(NOT_SPATIAL)
    tested |= {f"masking.{key}" for key in ("erode", "dilate", "open", "close", "hagberg", "peel", "quality", "robust")}
    tested |= {f"masking.{key}" for key in ("smooth", "trim", "bet", "ventricles", "homogeneity")}
    tested |= {"combination.mcpc3ds", "combination.aspire", "offset.mcpc3ds", "unwrapping.laplacian", "field.joint_fit"}
    tested |= {"merging.two_pass", "separation.chiseparation"}
    assert set(METHODS) <= tested, sorted(set(METHODS) - tested)
