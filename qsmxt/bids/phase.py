r"""From stored numbers to wrapped phase in radians, by evidence and never by guesswork.

Scanners and converters store phase in a dozen scales. Its meaning is decided for all echoes together, in the
order below; the first rule that holds is applied, and an image whose scale cannot be told is refused. An image
is never stretched to its own minimum and maximum: a gain error of the phase is a gain error of the susceptibility.

====  ======================  ==============================================================================
rule  evidence                conversion of the scaled value :math:`v` (after slope and intercept)
====  ======================  ==============================================================================
1     range given by user     :math:`2\pi (v - low) / (high - low) - \pi`
2     sidecar says rad        :math:`v`, if it fits :math:`[-\pi, \pi]` or :math:`[0, 2\pi]` (checked)
3     header                  slope and intercept put the 12 bits 0..4095 on a known scale
4     range                   both ends lie within 2 % of a known scale
5     stored numbers          before the slope they fill 12 bits, or :math:`\pm\pi`: the slope is an oddity
6     maker                   Siemens integers within -4096..4096 or 0..4095 that fill at least half of it
7     wraps                   symmetric ends, with jumps from one to the other between neighbours
8     radians                 within :math:`[-\pi, \pi]` or :math:`[0, 2\pi]` and wider than 1 rad
9     sidecar says rad        :math:`v` wrapped: narrow or already unwrapped phase, at most 200 rad wide
====  ======================  ==============================================================================

Known scales are :math:`\pm\pi` and :math:`0..2\pi` (rad), :math:`\pm 3142` and 0..6283 (mrad), -4096..4094,
0..4095, -2048..2047, 0..65535 and -32768..32767. Of those with integer steps, the full circle is the number of
steps (:math:`v \pi / 4096` for -4096..4094), not the distance of the ends.

References
----------
Robinson et al. 2017 (doi:10.1002/nbm.3601) for the meaning of phase; scales as written by the makers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmxt.bids.images import multiplied
from qsmxt.bids.makers import alternating_axes as alternating_axes
from qsmxt.bids.makers import is_conjugate as is_conjugate
from qsmxt.bids.makers import undo_alternation as undo_alternation
from qsmxt.bids.makers import wrap as wrap
from qsmxt.errors import InputError

#: Largest distance of the ends of the data from those of a known scale, fraction of its width.
SCALE_TOLERANCE = 0.02
#: The same for header fields, which are exact up to rounding.
HEADER_TOLERANCE = 2e-3
#: Phase in radians may exceed pi by this fraction (rounding, interpolation).
RADIAN_TOLERANCE = 0.02
#: Radians narrower than this (rad) are more likely another unit.
NARROWEST_RADIANS = 1.0
#: Limits of the width (rad) of what a sidecar may call radians.
CREDIBLE_RADIANS = (0.05, 200.0)
#: Fraction of neighbouring voxels that must jump from one end to the other to prove that phase wraps there.
WRAP_FRACTION = 5e-4
#: Integers with fewer steps to the circle are too coarse to be phase.
FEWEST_STEPS = 100
#: A jump is a difference above this fraction of the full width.
WRAP_JUMP = 0.75
#: An echo whose width is below this fraction of all echoes' width is in another unit.
NARROWEST_ECHO = 0.01
#: A value that fills more than this fraction of the voxels of an echo marks voxels without signal.
FILL_FRACTION = 0.01

REMEDY = "give the values that mean -pi and +pi with --phase-range LOW HIGH"


@dataclass(frozen=True)
class Scale:
    """A linear scale: ``low`` and ``high`` are the ends of the data, ``circle`` the width of 2 pi."""

    name: str
    low: float
    high: float
    circle: float
    zero: float = 0.0

    @property
    def width(self) -> float:
        return self.high - self.low

    def fits(self, low: float, high: float, tolerance: float) -> bool:
        """Whether data from ``low`` to ``high`` fill this scale."""
        slack = tolerance * self.width
        return abs(low - self.low) <= slack and abs(high - self.high) <= slack


#: Ends, width of the circle, and the value of phase zero.
SCALES = (
    Scale("radians from -pi to pi", -np.pi, np.pi, 2 * np.pi),
    Scale("radians from 0 to 2 pi", 0.0, 2 * np.pi, 2 * np.pi),
    Scale("milliradians from -3142 to 3142", -1000 * np.pi, 1000 * np.pi, 2000 * np.pi),
    Scale("milliradians from 0 to 6283", 0.0, 2000 * np.pi, 2000 * np.pi),
    Scale("steps from -4096 to 4094", -4096.0, 4094.0, 8192.0),
    Scale("steps from 0 to 4095", 0.0, 4095.0, 4096.0, 2048.0),
    Scale("steps from -2048 to 2047", -2048.0, 2047.0, 4096.0),
    Scale("steps from 0 to 65535", 0.0, 65535.0, 65536.0, 32768.0),
    Scale("steps from -32768 to 32767", -32768.0, 32767.0, 65536.0),
)
_SYMMETRIC_RADIANS, _POSITIVE_RADIANS = SCALES[:2]
_SIEMENS, _TWELVE_BITS, _CENTRED_TWELVE_BITS = SCALES[4], SCALES[5], SCALES[6]


@dataclass(frozen=True)
class StoredPhase:
    """One phase image as it is stored.

    Attributes
    ----------
    stored
        Numbers in the file, (x, y, z).
    slope, intercept
        Of the header; the scaled value is ``stored * slope + intercept``.
    metadata
        Sidecar.
    """

    stored: np.ndarray
    slope: float = 1.0
    intercept: float = 0.0
    metadata: Mapping[str, Any] | None = None

    def extent(self) -> tuple[float, float]:
        """Least and greatest finite number stored.

        Raises
        ------
        InputError
            If there is none.
        """
        stored = self.stored
        if stored.dtype.kind == "f" and not np.isfinite(stored.sum(dtype=np.float64)):
            stored = stored[np.isfinite(stored)]
        if stored.size == 0:
            raise InputError("phase: expected finite values, found only NaN or Inf; export the images again")
        return float(stored.min()), float(stored.max())

    def scaled(self, value: float) -> float:
        return value * self.slope + self.intercept


@dataclass(frozen=True)
class Conversion:
    """How stored phase becomes radians: ``factor * scaled + offset`` (or of the stored number), and why."""

    factor: float
    offset: float
    reason: str
    of_stored: bool = False


@dataclass(frozen=True)
class _Ranges:
    """Extent of all echoes: as stored, and scaled."""

    stored: tuple[float, float]
    scaled: tuple[float, float]

    @property
    def width(self) -> float:
        return self.scaled[1] - self.scaled[0]


def phase_to_radians(
    images: Sequence[StoredPhase], *, phase_range: tuple[float, float] | None = None
) -> tuple[np.ndarray, Conversion]:
    """Wrapped phase of all echoes.

    Parameters
    ----------
    images
        One per echo.
    phase_range
        Scaled values that mean :math:`-\\pi` and :math:`\\pi`; overrides all evidence.

    Returns
    -------
    phase
        (echo, x, y, z) float32, rad in :math:`[-\\pi, \\pi]`, 0 where the stored number is not finite. The sign is
        the stored one.
    conversion
        What was done and why.

    Raises
    ------
    InputError
        If the scale cannot be told, or contradicts the sidecar.

    Examples
    --------
    >>> import numpy as np
    >>> steps = np.array([0, 1024, 2048, 3072, 4095], np.int16).reshape(1, 1, 5)
    >>> phase, conversion = phase_to_radians([StoredPhase(steps, 2.0, -4096.0)])
    >>> np.round(phase.ravel() / np.pi, 3).tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    conversion = find_conversion(images, phase_range)
    phase = np.empty((len(images), *images[0].stored.shape), dtype=np.float32)
    for image, target in zip(images, phase, strict=True):
        _convert(image, conversion, target)
    return phase, conversion


def find_conversion(images: Sequence[StoredPhase], phase_range: tuple[float, float] | None = None) -> Conversion:
    """The rule that holds for all echoes together; see the module for their order."""
    ranges = _ranges(images)
    if phase_range is not None:
        return _by_request(ranges, phase_range)
    _check_units(images)
    if ranges.width == 0:
        raise InputError(
            f"phase: expected an image, found the constant {ranges.scaled[0]:g}; export the phase images again"
        )
    for rule in _RULES:
        conversion = rule(images, ranges)
        if conversion is not None:
            return conversion
    low, high = ranges.scaled
    raise InputError(
        f"phase: expected a known scale (such as -pi..pi, -4096..4094, 0..4095, -3142..3142), found values from "
        f"{low:.6g} to {high:.6g} (stored as {ranges.stored[0]:.6g} to {ranges.stored[1]:.6g}); {REMEDY}"
    )


def _ranges(images: Sequence[StoredPhase]) -> _Ranges:
    stored = [image.extent() for image in images]
    scaled = [
        tuple(sorted((image.scaled(low), image.scaled(high))))
        for image, (low, high) in zip(images, stored, strict=True)
    ]
    ranges = _Ranges(_span(stored), _span(scaled))
    for number, (low, high) in enumerate(scaled, start=1):
        if high - low < NARROWEST_ECHO * ranges.width:
            raise InputError(
                f"phase: expected all echoes in one unit, found echo {number} from {low:.6g} to {high:.6g} while all "
                f"echoes together range from {ranges.scaled[0]:.6g} to {ranges.scaled[1]:.6g}; convert them alike"
            )
    return ranges


def _span(extents: Sequence[tuple[float, ...]]) -> tuple[float, float]:
    return min(low for low, _ in extents), max(high for _, high in extents)


def _check_units(images: Sequence[StoredPhase]) -> None:
    for image in images:
        units = (image.metadata or {}).get("Units")
        if isinstance(units, str) and units.lower() not in ("rad", "arbitrary", "radian", "radians", "mrad", "a.u."):
            raise InputError(
                f"phase: Units: expected rad or arbitrary in the JSON sidecar, found {units!r}; "
                "a field map cannot take the place of phase"
            )


def _by_request(ranges: _Ranges, phase_range: tuple[float, float]) -> Conversion:
    low, high = (float(value) for value in phase_range)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"phase range: expected two numbers, low before high, found {low:g} and {high:g}")
    slack = RADIAN_TOLERANCE * (high - low)
    if ranges.scaled[0] < low - slack or ranges.scaled[1] > high + slack:
        raise InputError(
            f"phase range: expected all values between {low:g} and {high:g}, found {ranges.scaled[0]:.6g} to "
            f"{ranges.scaled[1]:.6g}; correct --phase-range"
        )
    factor = 2 * np.pi / (high - low)
    return Conversion(factor, -np.pi - factor * low, f"range {low:g} to {high:g} as requested")


def _says_radians(images: Sequence[StoredPhase]) -> bool:
    return all(str((image.metadata or {}).get("Units", "")).lower().startswith("rad") for image in images)


def _by_units(images: Sequence[StoredPhase], ranges: _Ranges) -> Conversion | None:
    if not _says_radians(images) or _by_radians(images, ranges) is None:
        return None
    if ranges.scaled[1] < (1 - RADIAN_TOLERANCE) * np.pi and _by_wraps(images, ranges) is not None:
        return None  # phase that wraps short of pi is not in radians, whatever the sidecar says
    return Conversion(1.0, 0.0, "Units in the sidecar is rad")


def _by_header(images: Sequence[StoredPhase], ranges: _Ranges) -> Conversion | None:
    """Slope and intercept that put twelve bits on a known scale."""
    first = images[0]
    low, high = ranges.stored
    if any((image.slope, image.intercept) != (first.slope, first.intercept) for image in images):
        return None
    if first.stored.dtype.kind == "f" or first.intercept == 0 or low < 0 or high > 4095:
        return None
    for scale in SCALES:
        if scale.fits(first.intercept, first.scaled(4095.0), HEADER_TOLERANCE):
            return _on(scale, f"slope {first.slope:g} and intercept {first.intercept:g} give {scale.name}")
    return None


def _by_range(images: Sequence[StoredPhase], ranges: _Ranges) -> Conversion | None:
    for scale in SCALES:
        if scale.fits(*ranges.scaled, SCALE_TOLERANCE):
            return _on(scale, f"values fill {scale.name}")
    return None


def _by_stored_numbers(images: Sequence[StoredPhase], ranges: _Ranges) -> Conversion | None:
    """Numbers that make sense before the slope, and not after it."""
    if any(image.slope < 0 for image in images):
        return None
    known = (_TWELVE_BITS, _SIEMENS, _CENTRED_TWELVE_BITS) if _is_whole(images) else (_SYMMETRIC_RADIANS,)
    for scale in known:
        if scale.fits(*ranges.stored, HEADER_TOLERANCE):
            found = _on(scale, f"stored numbers fill {scale.name}; the slope {images[0].slope:g} has no meaning")
            return Conversion(found.factor, found.offset, found.reason, of_stored=True)
    return None


def _by_maker(images: Sequence[StoredPhase], ranges: _Ranges) -> Conversion | None:
    """Siemens integers that do not reach both ends of their scale."""
    maker = str((images[0].metadata or {}).get("Manufacturer", ""))
    if "siemens" not in maker.lower() or not _is_whole(images):
        return None
    low, high = ranges.scaled
    for scale in (_TWELVE_BITS, _SIEMENS):
        inside = low >= scale.low and high <= scale.high + 2
        if inside and ranges.width >= 0.5 * scale.width:
            return _on(scale, f"integers by Siemens: {scale.name}")
    return None


def _by_wraps(images: Sequence[StoredPhase], ranges: _Ranges) -> Conversion | None:
    """Symmetric ends between which neighbours jump: the ends are minus and plus pi."""
    low, high = ranges.scaled
    coarse = _is_whole(images) and ranges.stored[1] - ranges.stored[0] < FEWEST_STEPS
    if coarse or not (high > 0 and abs(low + high) <= 1e-3 * high) or not _wraps(images, ranges.width):
        return None
    return Conversion(np.pi / high, 0.0, f"phase wraps at both ends, {low:.6g} and {high:.6g}")


def _by_radians(images: Sequence[StoredPhase], ranges: _Ranges) -> Conversion | None:
    slack = RADIAN_TOLERANCE * np.pi
    low, high = ranges.scaled
    within = (low >= -np.pi - slack and high <= np.pi + slack) or (low >= -slack and high <= 2 * np.pi + slack)
    if not within or ranges.width < NARROWEST_RADIANS or _is_rounded(images):
        return None
    return Conversion(1.0, 0.0, "values are radians")


def _by_units_beyond(images: Sequence[StoredPhase], ranges: _Ranges) -> Conversion | None:
    narrowest, widest = CREDIBLE_RADIANS
    if not _says_radians(images) or not narrowest <= ranges.width <= widest or _is_rounded(images):
        return None
    return Conversion(
        1.0,
        0.0,
        f"Units in the sidecar is rad, values from {ranges.scaled[0]:.4g} to {ranges.scaled[1]:.4g} are wrapped",
    )


def _is_whole(images: Sequence[StoredPhase]) -> bool:
    return all(image.stored.dtype.kind in "iu" for image in images)


def _is_rounded(images: Sequence[StoredPhase]) -> bool:
    """Whole numbers cannot be radians."""
    return _is_whole(images) and all(image.slope == 1 for image in images)


_RULES = (
    _by_units,
    _by_header,
    _by_range,
    _by_stored_numbers,
    _by_maker,
    _by_wraps,
    _by_radians,
    _by_units_beyond,
)


def _on(scale: Scale, reason: str) -> Conversion:
    factor = 2 * np.pi / scale.circle
    return Conversion(factor, -factor * scale.zero, reason)


def _wraps(images: Sequence[StoredPhase], width: float) -> bool:
    jumps = pairs = 0
    for image in images:
        limit = WRAP_JUMP * width / abs(image.slope)
        for axis in range(image.stored.ndim):
            steps = np.diff(image.stored.astype(np.float32), axis=axis)
            jumps += int(np.count_nonzero(np.abs(steps) > limit))
            pairs += steps.size
    return pairs > 0 and jumps > max(10, WRAP_FRACTION * pairs)


def _convert(image: StoredPhase, conversion: Conversion, target: np.ndarray) -> None:
    """Write radians in [-pi, pi] to ``target``; the linear map is composed in double precision first."""
    slope, intercept = (1.0, 0.0) if conversion.of_stored else (image.slope, image.intercept)
    factor = conversion.factor * slope
    offset = np.float32(conversion.factor * intercept + conversion.offset)
    multiplied(image.stored, factor, target)
    target += offset
    if image.stored.dtype.kind == "f":
        np.nan_to_num(target, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    wrap(target)


def fill_mask(images: Sequence[StoredPhase]) -> np.ndarray | None:
    """Voxels (echo, x, y, z) that hold a filling value, or ``None`` if no echo has any.

    Makers and programs put a constant where there is no signal: stored 0 (which a Philips slope turns into
    :math:`-\\pi`), scaled 0, or NaN. A constant would otherwise pass for perfectly coherent phase. One value of
    4096 fills 0.02 % of the voxels by chance; a filling value fills more than 1 %.
    """
    filled: np.ndarray | None = None
    for echo, image in enumerate(images):
        for voxels in _candidates(image):
            if np.count_nonzero(voxels) > FILL_FRACTION * voxels.size:
                if filled is None:
                    filled = np.zeros((len(images), *image.stored.shape), dtype=bool)
                filled[echo] |= voxels
    return filled


def _candidates(image: StoredPhase) -> Iterator[np.ndarray]:
    """Voxels that hold what may be a filling value, value by value."""
    yield image.stored == 0
    if image.intercept != 0:
        yield image.stored == -image.intercept / image.slope
    if image.stored.dtype.kind == "f":
        yield ~np.isfinite(image.stored)
