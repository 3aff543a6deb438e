"""What every background removal must do with fields that are known in closed form.

An ellipsoid of 34 x 40 x 32 mm semi-axes; harmonic polynomials, the field of a sphere outside, the field of a sphere
inside. The bounds are up to three times what was measured once, about the anchors of the literature; the methods are
tested with their defaults (SHARP, RESHARP and iSMV with the rim) and as published (no removal of solid harmonics, no
extension).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from qsmxt.constants import rad_per_ppm
from qsmxt.geometry import Grid
from qsmxt.registry.methods import methods

GRID = Grid((56, 64, 54), (1.5, 1.5, 1.5))
AXES = (34.0, 40.0, 32.0)
METHODS = methods("background")

#: Method -> parameters of the published form, tested beside the defaults.
PUBLISHED = {
    "sharp": {"harmonic_degree": -1, "threshold": 0.05, "extension": False},
    "vsharp": {"harmonic_degree": -1, "threshold": 0.05},
    "resharp": {"harmonic_degree": -1, "radius": 6.0, "extension": False},
    "ismv": {"harmonic_degree": -1, "radius": 3.0, "tolerance": 1e-5, "extension": False},
    "lbv": {"harmonic_degree": -1},
    "pdf": {"iterations": 100, "tolerance": 1e-6},
    "harperella": {"harmonic_degree": -1},
    "iharperella": {"harmonic_degree": -1},
    "msmv": {"initial": "lbv"},
}
CASES = [(key, {}) for key in METHODS] + list(PUBLISHED.items())
IDS = list(METHODS) + [f"{key}-published" for key in PUBLISHED]

#: Residual over input, harmonic polynomials: (defaults, published).
HARMONIC = {"pdf": (0.02, 0.005), "msmv": (0.02, 3e-4)}
#: The same for the field of a sphere outside.
OUTSIDE = {
    "sharp": (0.005, 0.0015),
    "vsharp": (0.004, 0.006),
    "resharp": (0.005, 0.001),
    "ismv": (0.005, 0.004),
    "lbv": (0.008, 0.009),
    "pdf": (0.0155, 0.0035),
    "msmv": (0.0155, 0.006),
    "tvpdf": (0.0055, 0),
    "harperella": (0.0066, 0.007),
    "iharperella": (0.0066, 0.0066),
}


def coordinates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * v).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, v) in enumerate(zip(GRID.shape, GRID.voxel_size, strict=True))
    )
    return x, y, z


@cache
def mask() -> np.ndarray:
    return sum((c / a) ** 2 for c, a in zip(coordinates(), AXES, strict=True)) <= 1


def sphere_field(centre: tuple[float, float, float], radius: float, chi: float) -> np.ndarray:
    """Relative field (ppm) of a uniform sphere, B0 along z; zero inside."""
    x, y, z = (c - o for c, o in zip(coordinates(), centre, strict=True))
    square = x * x + y * y + z * z
    outside = square > radius**2
    square = np.where(outside, square, 1)
    return np.where(outside, chi / 3 * radius**3 * (3 * z * z - square) / square**2.5, 0)


def run(key: str, field: np.ndarray, parameters: dict, grid: Grid = GRID) -> tuple[np.ndarray, np.ndarray]:
    """Local field and region; methods that take phase get it at an echo time that does not wrap."""
    arrays: dict = {"total_field": field.astype(np.float32), "mask": mask()}
    if "offset_free_phase" in METHODS[key].consumes:
        steepest = max(float(np.abs(np.diff(field, axis=axis)).max()) for axis in range(3))
        scale = 2.0 / max(steepest, 1e-9)
        times = np.array([scale / rad_per_ppm(3.0, 1.0)])
        unit = 1.0
        if times[0] > 0.05:
            unit, times = times[0] / 0.05, np.array([0.05])
        phase = rad_per_ppm(3.0, times[0]) * field * unit
        arrays |= {"offset_free_phase": np.angle(np.exp(1j * phase))[None], "echo_times": times, "field_strength": 3.0}
        out = METHODS[key].run(arrays, grid, parameters)
        return out["local_field"] / np.float32(unit), out["eroded_mask"]
    out = METHODS[key].run(arrays, grid, parameters)
    return out["local_field"], out["eroded_mask"]


def harmonics() -> list[np.ndarray]:
    x, y, z = (c / 40 for c in coordinates())
    zero = 0 * x * y * z
    return [x + zero, x * x - y * y + zero, x * y * z, 2 * z**3 - 3 * z * (x * x + y * y)]


@pytest.mark.parametrize(("key", "parameters"), CASES, ids=IDS)
def test_harmonic_fields_vanish(key, parameters):
    bound = HARMONIC.get(key, (3e-4, 3e-4))[bool(parameters)]
    for field in harmonics():
        local, kept = run(key, field, parameters)
        assert local[kept].std() < bound * field[mask()].std()


@pytest.mark.parametrize(("key", "parameters"), CASES, ids=IDS)
def test_a_constant_vanishes(key, parameters):
    local, kept = run(key, np.full(GRID.shape, 3.0), parameters)
    assert kept.any()
    assert np.abs(local).max() < 1e-5


@pytest.mark.parametrize(("key", "parameters"), CASES, ids=IDS)
def test_the_field_of_a_sphere_outside_vanishes(key, parameters):
    field = sphere_field((0.0, 40.0 + 6.0 + 8.0, 0.0), 8.0, 9.0)
    local, kept = run(key, field, parameters)
    assert local[kept].std() < OUTSIDE[key][bool(parameters)] * field[mask()].std()


@pytest.mark.parametrize(("key", "parameters"), CASES, ids=IDS)
def test_the_field_of_a_sphere_inside_survives(key, parameters):
    field = sphere_field((0.0, 0.0, 0.0), 5.0, 1.0)
    local, kept = run(key, field, parameters)
    x, y, z = coordinates()
    distance = np.sqrt(x * x + y * y + z * z)
    shell = kept & (distance > 7) & (distance < 20)
    found, truth = local[shell] - local[shell].mean(), field[shell] - field[shell].mean()
    assert np.corrcoef(found, truth)[0, 1] > 0.99
    assert float(found @ truth / (truth @ truth)) == pytest.approx(1, abs=0.08)
