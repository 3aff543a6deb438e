"""Phase scales: every known one gives the same radians, and nothing is ever stretched to its own extremes."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.bids.phase import StoredPhase, fill_mask, phase_to_radians
from qsmxt.errors import InputError

SHAPE = (14, 12, 10)
STEP = 2 * np.pi / 4096


def true_phase(scale: float = 1.0) -> np.ndarray:
    """Two echoes of a smooth field that wraps (``scale`` 1), over noise in a border."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    field = 4.2 * x + 2.5 * y * z
    noise = np.random.default_rng(3).uniform(-np.pi, np.pi, (2, *SHAPE))
    phase = np.stack([field, 2 * field])
    phase[:, :2] = noise[:, :2]
    return np.angle(np.exp(1j * phase)) * scale


def wrapped(difference: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * difference))


def steps_12_bit() -> np.ndarray:
    """The truth in 4096 steps, 0..4095; both ends occur."""
    steps = np.clip(np.floor((true_phase() + np.pi) / STEP), 0, 4095).astype(np.int16)
    steps[:, 0, 0, :2] = 0, 4095
    return steps


def stored_in(scale: str) -> list[StoredPhase]:
    """The truth as a scanner or converter would store it."""
    steps, truth = steps_12_bit(), true_phase()
    truth[:, 0, 0, :2] = -np.pi, np.pi * (1 - 1e-4)
    positive = np.mod(truth, 2 * np.pi)
    made = {
        "siemens": lambda echo: StoredPhase(steps[echo], 2.0, -4096.0),
        "siemens, slope applied": lambda echo: StoredPhase(steps[echo] * 2 - 4096),
        "siemens, slope lost": lambda echo: StoredPhase(steps[echo]),
        "siemens, as float": lambda echo: StoredPhase((steps[echo] * 2 - 4096).astype(np.float64)),
        "centred twelve bits": lambda echo: StoredPhase(steps[echo] - 2048),
        "philips, mrad": lambda echo: StoredPhase(steps[echo], 6.284 / 4.095, -3142.0),
        "philips, rad": lambda echo: StoredPhase(steps[echo], np.float32(2 * np.pi / 4095), -np.float32(np.pi)),
        "mrad": lambda echo: StoredPhase(np.rint(truth[echo] * 1000).astype(np.int16)),
        "mrad from 0": lambda echo: StoredPhase(np.rint(positive[echo] * 1000).astype(np.int16)),
        "rad": lambda echo: StoredPhase(truth[echo].astype(np.float32)),
        "rad from 0": lambda echo: StoredPhase(positive[echo].astype(np.float32)),
        "rad, float64": lambda echo: StoredPhase(truth[echo], metadata={"Units": "rad"}),
        "sixteen bits": lambda echo: StoredPhase(np.uint16(np.floor((truth[echo] + np.pi) / (2 * np.pi) * 65536))),
        "sixteen bits, signed": lambda echo: StoredPhase(np.int16(np.floor(truth[echo] / (2 * np.pi) * 65536))),
        "odd slope on rad": lambda echo: StoredPhase(truth[echo].astype(np.float32), 0.0011695906, 0.0),
        "odd slope on twelve bits": lambda echo: StoredPhase(steps[echo], 1 / 512, -3.7),
        "odd float scale": lambda echo: StoredPhase((truth[echo] * 0.0036743 / np.pi).astype(np.float32)),
        "unit circle": lambda echo: StoredPhase((truth[echo] / np.pi).astype(np.float32)),
    }
    return [made[scale](echo) for echo in (0, 1)]


SCALES = [
    "siemens", "siemens, slope applied", "siemens, slope lost", "siemens, as float", "centred twelve bits",
    "philips, mrad", "philips, rad", "mrad", "mrad from 0", "rad", "rad from 0", "rad, float64", "sixteen bits",
    "sixteen bits, signed", "odd slope on rad", "odd slope on twelve bits", "odd float scale", "unit circle",
]  # fmt: skip


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_gives_the_same_radians(scale: str) -> None:
    images = stored_in(scale)
    before = [image.stored.copy() for image in images]
    phase, conversion = phase_to_radians(images)
    truth = true_phase()
    truth[:, 0, 0, :2] = -np.pi, np.pi
    error = np.abs(wrapped(phase - truth))
    # one step of quantisation, and the steps of Philips are 4095 to the circle instead of 4096
    assert error.max() < 1.6 * STEP
    assert phase.dtype == np.float32
    assert np.abs(phase).max() <= np.pi
    assert conversion.reason
    assert all((image.stored == old).all() for image, old in zip(images, before, strict=True))


def test_siemens_zero_is_zero() -> None:
    """Scale only, no offset: the stored middle is phase zero, and the gain is pi / 4096."""
    values = np.array([-4096, -2048, 0, 2048, 4094], np.int16).reshape(1, 1, 5)
    phase, _ = phase_to_radians([StoredPhase(values)])
    assert np.allclose(phase.ravel(), np.array([-4096, -2048, 0, 2048, 4094]) * np.pi / 4096, atol=1e-6)


def test_radians_that_do_not_reach_pi_keep_their_gain() -> None:
    """A short echo time: 1.9 rad must stay 1.9 rad."""
    truth = true_phase(0.6).astype(np.float32)
    truth[truth < -1.5] = -1.5
    phase, _ = phase_to_radians([StoredPhase(truth[0]), StoredPhase(truth[1])])
    assert np.array_equal(phase, truth)


def test_smooth_symmetric_radians_are_not_stretched() -> None:
    """Symmetric ends alone prove nothing; only jumps between them do."""
    ramp = np.broadcast_to(np.linspace(-2, 2, SHAPE[0], dtype=np.float32)[:, None, None], SHAPE)
    phase, _ = phase_to_radians([StoredPhase(ramp)])
    assert np.array_equal(phase[0], ramp)


def test_scale_is_decided_for_all_echoes_together() -> None:
    """The first echo fills a third of the scale; alone it would be refused, or taken for something else."""
    short = (steps_12_bit()[0].astype(np.int32) // 3 * 2 - 1400).astype(np.int16)
    long = steps_12_bit()[1] * 2 - 4096
    phase, _ = phase_to_radians([StoredPhase(short), StoredPhase(long)])
    assert np.allclose(phase[0], short * np.pi / 4096, atol=1e-6)


def test_header_decides_before_the_range() -> None:
    """Masked Siemens phase that spans only part of its scale: slope and intercept tell."""
    values = np.clip(steps_12_bit(), 1500, 2700)
    phase, _ = phase_to_radians([StoredPhase(echo, 2.0, -4096.0) for echo in values])
    assert np.allclose(phase, (values * 2.0 - 4096) * np.pi / 4096, atol=1e-6)


def test_maker_decides_where_integers_do_not_reach_the_ends() -> None:
    values = np.clip(steps_12_bit(), 300, 3600)
    siemens = {"Manufacturer": "SIEMENS"}
    phase, _ = phase_to_radians([StoredPhase(echo, metadata=siemens) for echo in values])
    assert np.allclose(phase, values * np.pi / 2048 - np.pi, atol=1e-5)
    with pytest.raises(InputError, match="--phase-range"):
        phase_to_radians([StoredPhase(echo) for echo in values])


def test_unknown_scale_is_refused_and_can_be_given() -> None:
    images = [StoredPhase(((echo + 5) * 100).astype(np.float32)) for echo in true_phase()]
    with pytest.raises(InputError, match=r"186\.\d+ to 814\.\d.*--phase-range LOW HIGH"):
        phase_to_radians(images)
    phase, conversion = phase_to_radians(images, phase_range=(500 - 100 * np.pi, 500 + 100 * np.pi))
    assert np.abs(wrapped(phase - true_phase())).max() < 1e-5
    assert "requested" in conversion.reason


@pytest.mark.parametrize("limits", [(1.0, 1.0), (3.0, -3.0), (np.nan, 1.0), (-1.0, 1.0)])
def test_impossible_range_is_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="phase range"):
        phase_to_radians([StoredPhase(true_phase()[0])], phase_range=limits)


def test_tiny_values_without_wraps_are_refused() -> None:
    ramp = np.linspace(-0.0036743, 0.0036743, 1000, dtype=np.float32).reshape(10, 10, 10)
    with pytest.raises(InputError, match="known scale"):
        phase_to_radians([StoredPhase(ramp, metadata={"Units": "rad"})])


def test_units_rad_are_checked_against_wraps() -> None:
    """A sidecar that says rad over phase that wraps at 1 is wrong about the unit."""
    images = [StoredPhase((echo / np.pi).astype(np.float32), metadata={"Units": "rad"}) for echo in true_phase()]
    phase, _ = phase_to_radians(images)
    assert np.abs(wrapped(phase - true_phase())).max() < 0.01


def test_unwrapped_radians_are_wrapped() -> None:
    ramp = np.linspace(-9, 14, 1000).reshape(10, 10, 10)
    phase, conversion = phase_to_radians([StoredPhase(ramp, metadata={"Units": "rad"})])
    assert np.abs(phase[0] - wrapped(ramp)).max() < 1e-5
    assert "wrapped" in conversion.reason
    with pytest.raises(InputError):
        phase_to_radians([StoredPhase(ramp)])


def test_radians_rounded_to_integers_are_refused() -> None:
    with pytest.raises(InputError, match="known scale"):
        phase_to_radians([StoredPhase(np.rint(true_phase()[0]).astype(np.int16), metadata={"Units": "rad"})])


def test_echoes_in_different_units_are_refused() -> None:
    truth = true_phase()
    with pytest.raises(InputError, match="echo 1"):
        phase_to_radians([StoredPhase(truth[0]), StoredPhase(truth[1] * 4096 / np.pi)])


@pytest.mark.parametrize("units", ["Hz", "ppm", "T"])
def test_field_maps_are_refused(units: str) -> None:
    with pytest.raises(InputError, match=units):
        phase_to_radians([StoredPhase(true_phase()[0], metadata={"Units": units})])


@pytest.mark.parametrize("value", [0.0, -4096.0, np.nan])
def test_image_without_content_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="phase: expected"):
        phase_to_radians([StoredPhase(np.full(SHAPE, value, np.float32))])


def test_values_that_are_not_finite_become_zero_and_do_not_disturb_the_scale() -> None:
    truth = true_phase().astype(np.float32)
    truth[0, 3, 3, 3], truth[1, 4, 4, 4] = np.nan, np.inf
    phase, _ = phase_to_radians([StoredPhase(echo) for echo in truth])
    assert phase[0, 3, 3, 3] == phase[1, 4, 4, 4] == 0
    rest = np.isfinite(truth)
    assert np.abs(wrapped(phase - np.where(rest, truth, 0)))[rest].max() < 1e-6


# filling values


def test_filling_values() -> None:
    steps = steps_12_bit()
    assert fill_mask([StoredPhase(echo, 2.0, -4096.0) for echo in steps]) is None
    outside = np.zeros(SHAPE, bool)
    outside[:5] = True
    for value, slope, intercept in ((0, 1.5345, -3142.0), (2048, 2.0, -4096.0), (0, 1.0, 0.0)):
        filled = steps.copy()
        filled[:, outside] = value
        mask = fill_mask([StoredPhase(echo, slope, intercept) for echo in filled])
        assert mask is not None and mask[:, outside].all() and mask[:, ~outside].mean() < 0.01
    floats = true_phase()
    floats[:, outside] = np.nan
    mask = fill_mask([StoredPhase(echo) for echo in floats])
    assert mask is not None and (mask == outside).all()


def test_echoes_are_filled_on_their_own() -> None:
    """Makers cut the phase where an echo is weak: more of the later echoes."""
    steps = steps_12_bit()
    steps[1, :5] = 0
    mask = fill_mask([StoredPhase(echo) for echo in steps])
    assert mask is not None and mask[1, :5].all() and not mask[0].any() and mask[1, 5:].mean() < 0.01
