"""Corrections of makers: what was stored is found again, and what was done stands in the sidecar."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from qsmxt.bids.makers import CORRECTIONS_KEY
from qsmxt.convert.dcm2niix import Converted
from qsmxt.convert.vendor import correct_phases
from tests.convert.scanner import siemens_phase

SHAPE = (8, 6, 7)


def smooth_phase(echoes: int = 2) -> np.ndarray:
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    field = 3 * x * y + z - x**2
    return np.stack([np.angle(np.exp(1j * (1.5 + field * (1 + 3 * e)))) for e in range(echoes)])


def converted(stored: np.ndarray, slope: float = 1.0, intercept: float = 0.0, **sidecar: object) -> Converted:
    header = nibabel.Nifti1Image(stored, np.eye(4)).header
    return Converted(stored, slope, intercept, header, dict(sidecar))


def wrapped(difference: np.ndarray) -> np.ndarray:
    return np.abs(np.angle(np.exp(1j * difference)))


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(2.0, -4096.0), (1.0, 0.0), (2 * np.pi / 4096, -np.pi), (2000 * np.pi / 4096, -1000 * np.pi)],
    ids=["steps", "no slope", "radians", "milliradians"],
)
def test_scale_becomes_radians_and_the_numbers_stay(slope: float, intercept: float) -> None:
    phase = smooth_phase()
    stored = siemens_phase(phase).astype(np.int16)
    images, warnings = correct_phases([{"phase": converted(s, slope, intercept)} for s in stored], "siemens")
    assert warnings == []
    for echo, image in enumerate(images):
        assert image["phase"].stored is not None and np.array_equal(image["phase"].stored, stored[echo])
        assert wrapped(image["phase"].values() - phase[echo]).max() <= np.pi / 4096 * 1.01
        assert image["phase"].sidecar["Units"] == "rad"
        assert image["phase"].sidecar[CORRECTIONS_KEY]["PhaseSign"] == "as stored"


def test_unknown_scale_is_left_and_said() -> None:
    stored = np.rint(smooth_phase() * 100).astype(np.int16)
    images, warnings = correct_phases([{"phase": converted(s, 0.37)} for s in stored], "other")
    assert len(warnings) == 1 and "left as it is" in warnings[0]
    for echo, image in enumerate(images):
        np.testing.assert_array_equal(image["phase"].values(), stored[echo] * np.float32(0.37))
        assert image["phase"].sidecar == {"Units": "arbitrary"}


@pytest.mark.parametrize("alternating", [True, False])
def test_ge_complex_images(alternating: bool) -> None:
    phase, magnitude = smooth_phase(), np.linspace(1, 2, np.prod(SHAPE)).reshape(SHAPE)
    sign = (-1.0) ** np.arange(SHAPE[2]) if alternating else 1.0
    signal = magnitude * np.exp(-1j * phase) * sign
    parts = [
        {"real": converted(s.real.astype(np.float32)), "imag": converted(s.imag.astype(np.float32))} for s in signal
    ]
    images, _ = correct_phases(parts, "ge")
    for echo, image in enumerate(images):
        assert set(image) == {"mag", "phase"}
        np.testing.assert_allclose(image["mag"].values(), magnitude, rtol=1e-6)
        assert wrapped(image["phase"].values() - phase[echo]).max() < 1e-5
        assert np.abs(image["phase"].values()).max() <= np.pi
        record = image["phase"].sidecar[CORRECTIONS_KEY]
        assert (record["SliceAlternation"], record["PhaseSign"]) == ("z" if alternating else "none", "inverted")
        assert "Units" not in image["mag"].sidecar


def test_ge_magnitude_and_phase() -> None:
    phase = smooth_phase()
    stored = np.angle(np.exp(-1j * phase) * (-1.0) ** np.arange(SHAPE[2]))
    milliradians = np.rint(stored * 1000).astype(np.int16)
    magnitude = converted(np.full(SHAPE, 100, np.int16))
    images, _ = correct_phases([{"mag": magnitude, "phase": converted(m)} for m in milliradians], "ge")
    for echo, image in enumerate(images):
        assert wrapped(image["phase"].values() - phase[echo]).max() < 1e-3
        assert image["phase"].sidecar[CORRECTIONS_KEY]["SliceAlternation"] == "z"
        np.testing.assert_array_equal(image["mag"].stored, 100)


def test_real_and_imaginary_of_others_stay() -> None:
    """What GE does must not be done to Philips."""
    part = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    images, _ = correct_phases([{"real": converted(part), "imag": converted(-part)}], "philips")
    np.testing.assert_array_equal(images[0]["real"].values(), part)
    np.testing.assert_array_equal(images[0]["imag"].values(), -part)
