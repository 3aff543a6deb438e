"""What makers do to phase, undone while converting, and recorded.

Scale
    The scale of the phase is found from header and values of all echoes together (:mod:`qsmxt.bids.phase`). The stored
    numbers are kept; slope and intercept of the NIfTI header are changed so that they give radians, and the sidecar
    says ``"Units": "rad"``. If the scale cannot be told nothing is changed and the sidecar says ``"arbitrary"``.
GE
    The sign of the complex image may alternate from slice to slice, which is looked for and undone, and phase is
    stored conjugated, which is inverted. Real and imaginary part become magnitude and phase.

Either is recorded in the sidecar of the phase under :data:`~qsmxt.bids.makers.CORRECTIONS_KEY`, an object with the
entries ``PhaseScale`` (the evidence), ``SliceAlternation`` (the axes, or ``"none"``) and ``PhaseSign`` (``"inverted"``
or ``"as stored"``). Who reads the image must not correct again what stands there; what does not stand there was not
looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qsmxt.bids.makers import CORRECTIONS_KEY, alternating_axes, undo_alternation, wrap
from qsmxt.bids.phase import StoredPhase, find_conversion, phase_to_radians
from qsmxt.convert.dcm2niix import Converted
from qsmxt.errors import InputError


@dataclass
class Image:
    """An image ready to be written: numbers, their scale, the header they came with, and the sidecar."""

    stored: np.ndarray
    slope: float
    intercept: float
    header: Any
    sidecar: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, converted: Converted) -> Image:
        """The same image."""
        return cls(converted.stored, converted.slope, converted.intercept, converted.header, dict(converted.sidecar))

    def values(self) -> np.ndarray:
        """Scaled values, float32."""
        return self.stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


def correct_phases(
    parts: Sequence[Mapping[str, Converted]], manufacturer: str
) -> tuple[list[dict[str, Image]], list[str]]:
    """Finish all echoes of one acquisition.

    Parameters
    ----------
    parts
        For every echo, its images by part (``mag``, ``phase``, ``real``, ``imag``).
    manufacturer
        ``ge`` or another.

    Returns
    -------
    images
        The same by part; for GE, real and imaginary part have become magnitude and phase.
    warnings
        In words.
    """
    images = [{part: Image.of(converted) for part, converted in echo.items()} for echo in parts]
    if not images:
        return images, []
    if manufacturer == "ge" and {"real", "imag"} <= set(images[0]):
        return _ge_cartesian(images), []
    if "phase" not in images[0]:
        return images, []
    if manufacturer == "ge":
        return _ge_polar(images)
    warnings = scale_phases([echo["phase"] for echo in images])
    for echo in images:
        if CORRECTIONS_KEY in echo["phase"].sidecar:
            echo["phase"].sidecar[CORRECTIONS_KEY] |= {"SliceAlternation": "none", "PhaseSign": "as stored"}
    return images, warnings


def _stored(image: Image) -> StoredPhase:
    return StoredPhase(image.stored, image.slope, image.intercept, image.sidecar)


def scale_phases(phases: Sequence[Image]) -> list[str]:
    """Change slope and intercept of the phase of all echoes so that they give radians; the numbers stay.

    Returns a warning if the scale cannot be told; the images then are as they were, in arbitrary units.
    """
    try:
        conversion = find_conversion([_stored(image) for image in phases])
    except InputError as error:
        for image in phases:
            image.sidecar["Units"] = "arbitrary"
        return [f"phase left as it is: {error}"]
    for image in phases:
        slope, intercept = (1.0, 0.0) if conversion.of_stored else (image.slope, image.intercept)
        image.slope = conversion.factor * slope
        image.intercept = conversion.factor * intercept + conversion.offset
        image.sidecar["Units"] = "rad"
        earlier = image.sidecar.get(CORRECTIONS_KEY)
        earlier = earlier if isinstance(earlier, dict) else {}
        image.sidecar[CORRECTIONS_KEY] = {"PhaseScale": conversion.reason, **earlier}
    return []


def _ge_polar(images: list[dict[str, Image]]) -> tuple[list[dict[str, Image]], list[str]]:
    phases = [echo["phase"] for echo in images]
    try:
        phase, conversion = phase_to_radians([_stored(image) for image in phases])
    except InputError as error:
        for image in phases:
            image.sidecar["Units"] = "arbitrary"
        return images, [f"phase left as it is: {error}"]
    magnitude = np.stack([echo["mag"].values() for echo in images]) if "mag" in images[0] else None
    axes = _correct_ge(phase, magnitude)
    for image, angle in zip(phases, phase, strict=True):
        image.stored, image.slope, image.intercept = angle, 1.0, 0.0
        _record(image, conversion.reason, axes)
    return images, []


def _ge_cartesian(images: list[dict[str, Image]]) -> list[dict[str, Image]]:
    real = np.stack([echo["real"].values() for echo in images])
    imag = np.stack([echo["imag"].values() for echo in images])
    modulus = np.hypot(real, imag)
    phase = np.arctan2(imag, real)
    wrap(phase)
    axes = _correct_ge(phase, modulus)
    finished = []
    for echo, angle, length in zip(images, phase, modulus, strict=True):
        template = echo["real"]
        angle[length == 0] = 0
        made = Image(angle, 1.0, 0.0, template.header.copy(), dict(template.sidecar))
        _record(made, "angle of real and imaginary part", axes)
        magnitude = echo.get("mag") or Image(length, 1.0, 0.0, template.header.copy(), dict(template.sidecar))
        finished.append({"mag": magnitude, "phase": made})
    return finished


def _correct_ge(phase: np.ndarray, magnitude: np.ndarray | None) -> str:
    """Undo alternation and conjugation in place; returns the axes that alternated."""
    axes = alternating_axes(phase[:1], None if magnitude is None else magnitude[:1])  # where phase is least steep
    if axes:
        undo_alternation(phase, axes)
    np.negative(phase, out=phase)
    return " and ".join("xyz"[axis] for axis in axes) or "none"


def _record(image: Image, scale: str, alternation: str) -> None:
    image.sidecar["Units"] = "rad"
    image.sidecar[CORRECTIONS_KEY] = {
        "PhaseScale": scale, "SliceAlternation": alternation, "PhaseSign": "inverted",
    }  # fmt: skip
