"""ROMEO as a method: exactness, invariances, several echoes, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.algorithms.unwrapping.romeo import RomeoParameters, romeo
from qsmxt.errors import InputError, ParameterError
from qsmxt.geometry import Grid

TWO_PI = 2 * np.pi
ONE_TIME = np.array([0.01])
TIMES = np.array([0.005, 0.011, 0.017, 0.023])


def wrap(phase: np.ndarray) -> np.ndarray:
    """Phase in [-pi, pi)."""
    return (phase + np.pi) % TWO_PI - np.pi


def unwrap_one(truth: np.ndarray) -> np.ndarray:
    """The unwrapped single echo whose true phase is ``truth``."""
    wrapped = wrap(truth).astype(np.float32)[None]
    return romeo(wrapped, np.ones_like(wrapped), ONE_TIME, Grid(truth.shape))[0]


def turns(unwrapped: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whole turns between result and truth."""
    return np.rint((unwrapped.astype(np.float64) - truth) / TWO_PI)


def simulate(peak: float) -> dict[str, np.ndarray]:
    """Four noisy echoes of a field with a peak (Hz) at one side and a dark spot, and a mask of two parts."""
    shape = (44, 40, 36)
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    field = peak * np.exp(-6 * ((x - 0.9) ** 2 + y**2 + z**2)) + 80 * x * y - 60 * z
    truth = TWO_PI * field * TIMES[:, None, None, None]
    magnitude = np.where((x + 0.3) ** 2 + y**2 + z**2 < 0.01, 0.05, 1.0) * np.exp(-25 * TIMES)[:, None, None, None]
    noise = 0.02 * (rng.standard_normal(truth.shape) + 1j * rng.standard_normal(truth.shape))
    signal = magnitude * np.exp(1j * truth) + noise
    mask = (x**2 + y**2 + z**2 < 0.95) & (np.abs(x + 0.02) > 0.03)
    return {
        "truth": truth,
        "phase": np.angle(signal).astype(np.float32),
        "magnitude": np.abs(signal).astype(np.float32),
        "mask": mask,
        "bright": mask & (magnitude[0] > 0.5),
    }


@pytest.fixture(scope="module")
def head() -> dict[str, np.ndarray]:
    """Steps between neighbours below pi at all echoes, range 40 rad at the last one."""
    return simulate(170.0)


@pytest.mark.parametrize("slope", [2.0, 2.9, 3.1])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ramps_are_recovered_up_to_a_turn(slope, axis):
    shape = (20, 21, 23)
    truth = slope * np.moveaxis(np.arange(shape[axis])[:, None, None] * np.ones((1, 5, 6)), 0, axis)
    error = unwrap_one(truth) - truth
    np.testing.assert_allclose(error, TWO_PI * np.rint(error.flat[0] / TWO_PI), atol=2e-5)


@pytest.mark.parametrize(("noise", "allowed"), [(0.0, 0.0), (0.3, 0.0), (0.6, 1.5e-3)])
def test_a_smooth_field_of_56_rad_is_recovered(noise, allowed):
    shape = (48, 44, 40)
    rng = np.random.default_rng(11)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    truth = 34 * np.exp(-3 * ((x - 0.2) ** 2 + y**2 + z**2)) + 14 * x * y - 12 * z * x * x
    largest = max(np.abs(np.diff(truth, axis=a)).max() for a in range(3))
    truth *= 2.4 / largest
    assert np.ptp(truth) > 40
    truth += noise * rng.standard_normal(shape)
    n = turns(unwrap_one(truth), truth)
    assert (n != np.median(n)).mean() <= allowed


def test_only_whole_turns_are_added(head):
    out = romeo(head["phase"], head["magnitude"], TIMES, Grid(head["mask"].shape), mask=head["mask"])
    added = (out.astype(np.float64) - head["phase"])[:, head["mask"]] / TWO_PI
    np.testing.assert_allclose(added, np.rint(added), atol=3e-6)
    assert not out[:, ~head["mask"]].any()


def test_whole_turns_in_the_input_and_a_second_run_change_nothing(head):
    grid = Grid(head["mask"].shape)
    once = romeo(head["phase"], head["magnitude"], TIMES, grid, mask=head["mask"])
    shift = TWO_PI * np.random.default_rng(0).integers(-2, 3, head["phase"].shape)
    shifted = (head["phase"] + shift).astype(np.float32)
    np.testing.assert_allclose(romeo(shifted, head["magnitude"], TIMES, grid, mask=head["mask"]), once, atol=3e-4)
    np.testing.assert_allclose(romeo(once, head["magnitude"], TIMES, grid, mask=head["mask"]), once, atol=3e-4)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"mode": "individual"}, {"template": 2}, {"max_seeds": 40}, {"weights": "bestpath"}, {"regrow_below": 0.3}],
    ids=str,
)
def test_all_echoes_of_both_parts_of_the_mask_are_right(head, parameters):
    out = romeo(
        head["phase"],
        head["magnitude"],
        TIMES,
        Grid(head["mask"].shape),
        RomeoParameters(**parameters),
        mask=head["mask"],
    )
    n = turns(out, head["truth"])[:, head["bright"]]
    assert (n != np.median(n[0])).mean() < 2e-4


def test_the_template_recovers_echoes_whose_own_steps_exceed_pi():
    steep = simulate(420.0)
    assert np.abs(np.diff(steep["truth"][3], axis=0)).max() > 5
    out = romeo(steep["phase"], steep["magnitude"], TIMES, Grid(steep["mask"].shape), mask=steep["mask"])
    n = turns(out, steep["truth"])[:, steep["bright"]]
    assert (n != np.median(n[0])).mean() < 2e-4


def test_the_template_needs_no_offset_but_individual_echoes_do_not_care(head):
    offset = 1.2 * np.linspace(-1, 1, 44)[:, None, None]
    truth = head["truth"] + offset
    phase = wrap(head["phase"] + offset).astype(np.float32)
    out = romeo(
        phase,
        head["magnitude"],
        TIMES,
        Grid(head["mask"].shape),
        RomeoParameters(mode="individual"),
        mask=head["mask"],
    )
    for e in range(4):
        n = turns(out[e], truth[e])[head["bright"] & (np.indices(head["mask"].shape)[0] > 22)]
        assert (n != np.median(n)).mean() < 1e-3


def test_nan_voxels_are_left_out_and_do_no_harm(head):
    rng = np.random.default_rng(3)
    broken = rng.random(head["mask"].shape) < 0.02
    phase, magnitude = head["phase"].copy(), head["magnitude"].copy()
    phase[2, broken] = np.nan
    magnitude[1, ::7, ::5, ::6] = np.nan
    out = romeo(phase, magnitude, TIMES, Grid(head["mask"].shape), mask=head["mask"])
    assert not out[:, broken].any()
    n = turns(out, head["truth"])[:, head["bright"] & ~broken]
    assert (n != np.median(n[0])).mean() < 2e-4


def test_without_a_mask_noise_around_the_head_does_no_harm():
    shape = (40, 36, 32)
    rng = np.random.default_rng(5)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.5
    truth = 20 * x * y + 18 * z
    signal = inside * np.exp(1j * truth) + 0.03 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    out = romeo(
        np.angle(signal)[None].astype(np.float32), np.abs(signal)[None].astype(np.float32), ONE_TIME, Grid(shape)
    )[0]
    n = turns(out, truth)[inside]
    assert np.ptp(n) == 0


@pytest.mark.parametrize("shape", [(1, 17, 19), (13, 1, 11), (1, 1, 29)])
def test_volumes_one_voxel_thick(shape):
    index = np.indices(shape)
    truth = 1.7 * index[0] + 2.1 * index[1] - 2.3 * index[2]
    n = turns(unwrap_one(truth.astype(float)), truth)
    assert np.ptp(n) == 0


def test_inputs_are_not_modified_and_runs_repeat(head):
    phase, magnitude = head["phase"].copy(), head["magnitude"].copy()
    first = romeo(phase, magnitude, TIMES, Grid(head["mask"].shape), mask=head["mask"])
    second = romeo(phase, magnitude, TIMES, Grid(head["mask"].shape), mask=head["mask"])
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(phase, head["phase"])
    np.testing.assert_array_equal(magnitude, head["magnitude"])


def test_the_phase_of_a_whole_volume_is_left_alone(head):
    phase = head["phase"].copy()
    unwrapped = romeo(phase, head["magnitude"], TIMES, Grid(head["mask"].shape))
    np.testing.assert_array_equal(phase, head["phase"])
    assert np.abs(unwrapped).max() > np.pi


def test_bad_input_is_refused(head):
    grid = Grid(head["mask"].shape)
    phase, magnitude = head["phase"], head["magnitude"]
    with pytest.raises(InputError, match="empty mask"):
        romeo(phase, magnitude, TIMES, grid, mask=np.zeros(grid.shape, bool))
    with pytest.raises(InputError, match="strictly ascending"):
        romeo(phase, magnitude, np.array([0.005, 0.011, 0.011, 0.023]), grid)
    with pytest.raises(InputError, match="milliseconds"):
        romeo(phase, magnitude, TIMES * 1000, grid)
    with pytest.raises(InputError, match="magnitude: expected shape"):
        romeo(phase, magnitude[:3], TIMES, grid)
    with pytest.raises(InputError, match="only NaN"):
        romeo(np.full_like(phase, np.nan), magnitude, TIMES, grid)
    with pytest.raises(ParameterError, match="template echo 5"):
        romeo(phase, magnitude, TIMES, grid, RomeoParameters(template=5))
