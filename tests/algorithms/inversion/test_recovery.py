"""What every inversion of a field must do: recover known spheres, and not care how the axes are named."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.geometry import Grid
from qsmxt.registry.methods import methods

METHODS = {k: m for k, m in methods("inversion").items() if "wrapped_phase" not in m.consumes and m.extra is None}

#: Error of the four spheres, percent: measured, plus a fifth.
LIMITS = {
    "amppe": 24.5, "ilsqr": 30, "qsmart": 41, "star": 4.7,
    "hdqsm": 4.7, "l1qsm": 5.7, "medi": 5.8, "ndi": 50, "nltgv": 5.3, "nltv": 4.7, "rts": 19, "tfi": 8.1, "tgv": 5.8,
    "tikhonov": 31, "tkd": 32, "tsvd": 36, "tv": 13.1, "tvtfi": 14, "whqsm": 5.1,
}  # fmt: skip
#: The same with B0 oblique and anisotropic voxels, whose sampled kernel is coarser than the field.
OBLIQUE_LIMITS = {
    "amppe": 35, "ilsqr": 43, "qsmart": 53, "star": 25,
    "hdqsm": 25, "l1qsm": 27, "medi": 26, "ndi": 61, "nltgv": 25, "nltv": 25, "rts": 38, "tfi": 9.0, "tgv": 7.5,
    "tikhonov": 46, "tkd": 46, "tsvd": 47, "tv": 28, "tvtfi": 22, "whqsm": 26,
}  # fmt: skip
#: Exactly linear methods: these parameters make the others homogeneous too (no weight in the units of the map).
LINEAR = ("tkd", "tsvd", "tikhonov")


def test_every_method_has_its_limit():
    assert set(METHODS) == set(LIMITS) == set(OBLIQUE_LIMITS)


@pytest.mark.parametrize("key", METHODS)
def test_spheres_are_recovered(key, spheres):
    chi = METHODS[key].run(spheres.arrays(), spheres.grid)["chi"]
    assert spheres.error(chi) < LIMITS[key]
    for value in (0.1, 0.2, -0.05, 0.15):
        assert np.sign(chi[spheres.chi == np.float32(value)].mean()) == np.sign(value)
    assert chi[spheres.chi == np.float32(0.2)].mean() > 0.1


@pytest.mark.parametrize("key", METHODS)
def test_spheres_are_recovered_with_oblique_field_and_anisotropic_voxels(key, oblique):
    chi = METHODS[key].run(oblique.arrays(), oblique.grid)["chi"]
    assert oblique.error(chi) < OBLIQUE_LIMITS[key]


@pytest.mark.parametrize("key", METHODS)
def test_the_sign_of_b0_does_not_matter(key, oblique):
    back = Grid(oblique.grid.shape, oblique.grid.voxel_size, tuple(-b for b in oblique.grid.b0_direction))
    quick = _quick(key)
    one = METHODS[key].run(oblique.arrays(), oblique.grid, quick)["chi"]
    other = METHODS[key].run(oblique.arrays(), back, quick)["chi"]
    np.testing.assert_array_equal(one, other)


def _quick(key: str) -> dict:
    """A few iterations: symmetries hold at any stage."""
    names = {d.name for d in METHODS[key].declared_parameters()}
    quick = {"iterations": 8 if key == "rts" else 4, "tolerance": 0} if "iterations" in names else {}
    return {name: value for name, value in quick.items() if name in names}


@pytest.mark.parametrize("key", sorted(set(METHODS) - {"tvtfi"}))  # the box of tvtfi has an odd side here
@pytest.mark.parametrize("order", [(0, 2, 1), (2, 0, 1)])
def test_the_map_turns_with_the_axes(key, order, oblique):
    """With periodic differences a flip would move the forward differences; a permutation moves nothing."""
    g = oblique.grid
    turned = Grid(*(tuple(values[i] for i in order) for values in (g.shape, g.voxel_size, g.b0_direction)))
    chi = METHODS[key].run(oblique.arrays(), g, _quick(key))["chi"]
    moved = {name: np.ascontiguousarray(a.transpose(order)) for name, a in oblique.arrays().items()}
    other = METHODS[key].run(moved, turned, _quick(key))["chi"].transpose(np.argsort(order))
    # iterative methods amplify rounding, and thresholds can tip
    limit = 1e-5 if key in LINEAR else 5e-3
    assert np.abs(other - chi).max() < limit * np.abs(chi).max()


@pytest.mark.parametrize("key", LINEAR)
def test_direct_methods_are_additive(key, spheres):
    rng = np.random.default_rng(0)
    other = (rng.standard_normal(spheres.grid.shape) * 0.01).astype(np.float32)
    method = METHODS[key].function
    whole = method(2 * spheres.field - 3 * other, spheres.mask, spheres.grid)
    parts = 2 * method(spheres.field, spheres.mask, spheres.grid) - 3 * method(other, spheres.mask, spheres.grid)
    assert np.abs(whole - parts).max() < 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize("key", LINEAR)
def test_direct_methods_do_not_see_flips(key, oblique):
    g = oblique.grid
    chi = METHODS[key].run(oblique.arrays(), g)["chi"]
    for axis in range(3):
        b = list(g.b0_direction)
        b[axis] = -b[axis]
        flipped = Grid(g.shape, g.voxel_size, (b[0], b[1], b[2]))
        arrays = {name: np.ascontiguousarray(np.flip(a, axis)) for name, a in oblique.arrays().items()}
        other = np.flip(METHODS[key].run(arrays, flipped)["chi"], axis)
        assert np.abs(other - chi).max() < 2e-5 * np.abs(chi).max()


@pytest.mark.parametrize("key", [k for k in METHODS if "weight" in {d.name for d in METHODS[k].declared_parameters()}])
def test_a_larger_weight_is_smoother(key, spheres):
    def roughness(weight: float) -> float:
        chi = METHODS[key].run(spheres.arrays(), spheres.grid, {"weight": weight})["chi"]
        return float(np.abs(np.diff(chi, axis=0)).sum())

    default = METHODS[key].parameters().weight
    assert roughness(20 * default) < roughness(default)


@pytest.mark.parametrize("key", METHODS)
@pytest.mark.parametrize("shape", [(11, 13, 17), (12, 12, 4)])
def test_prime_sizes_and_masks_that_touch_the_border(key, shape):
    grid = Grid(shape, (2.0, 2.0, 2.0))
    rng = np.random.default_rng(1)
    field = (0.01 * rng.standard_normal(shape)).astype(np.float32)
    mask = np.ones(shape, dtype=bool)
    chi = METHODS[key].run({"local_field": field, "total_field": field, "mask": mask}, grid, _quick(key))["chi"]
    assert chi.shape == shape
    assert 1e-5 < np.abs(chi).max() < 1


@pytest.mark.parametrize("key", METHODS)
def test_a_shift_of_the_window_does_not_matter(key, spheres):
    """The crop follows the mask, so more air around the head changes nothing."""
    chi = METHODS[key].run(spheres.arrays(), spheres.grid, _quick(key))["chi"]
    margins = ((3, 1), (0, 6), (2, 2))
    arrays = {name: np.pad(a, margins) for name, a in spheres.arrays().items()}
    grid = spheres.grid.with_shape(arrays["mask"].shape)
    other = METHODS[key].run(arrays, grid, _quick(key))["chi"]
    nx, ny, nz = spheres.grid.shape
    np.testing.assert_array_equal(other[3 : 3 + nx, :ny, 2 : 2 + nz], chi)
