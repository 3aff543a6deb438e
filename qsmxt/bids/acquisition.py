"""Load the arrays of a processing unit: wrapped phase in radians, magnitude, geometry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.bids.images import Header, check_same_grid, multiplied, read_header, stored_values
from qsmxt.bids.makers import CORRECTIONS_KEY, alternating_axes, is_conjugate, undo_alternation, wrap
from qsmxt.bids.phase import StoredPhase, fill_mask, phase_to_radians
from qsmxt.bids.units import EchoFiles, ProcessingUnit
from qsmxt.constants import GAMMA_BAR_HZ_PER_T
from qsmxt.errors import InputError, ParameterError
from qsmxt.geometry import Grid

PHASE_SIGNS = ("auto", "+", "-")

#: Relative differences between nominal field and imaging frequency that deserve a remark: less is rounding, more is
#: another nucleus or unit.
LEAST_DIFFERENCE = 0.01
GREATEST_DIFFERENCE = 0.2


@dataclass
class Acquisition:
    """Arrays and numbers of one unit.

    Attributes
    ----------
    wrapped_phase
        (echo, x, y, z) float32, rad in [-pi, pi], positive for paramagnetic fields; 0 where there is no signal.
    magnitude
        (echo, x, y, z) float32, 0 where there is no signal; ones if the unit has none (see ``has_magnitude``).
    echo_times
        float64, s, ascending.
    field_strength
        T.
    affine
        4 x 4 voxel-to-scanner matrix, mm.
    grid
        Sampling and B0 direction.
    has_magnitude
        False if there was no magnitude image.
    notes
        Every correction applied, in words.
    corrections
        The same for the sidecars of derivatives.
    """

    wrapped_phase: np.ndarray
    magnitude: np.ndarray
    echo_times: np.ndarray
    field_strength: float
    affine: np.ndarray
    grid: Grid
    has_magnitude: bool = True
    notes: list[str] = field(default_factory=list)
    corrections: dict[str, Any] = field(default_factory=dict)


def check_unit(unit: ProcessingUnit) -> None:
    """Check what headers and sidecars tell: that the files can be read and lie on one grid.

    Raises
    ------
    MissingInputError
        If a file is absent.
    InputError
        If one is empty or truncated, is not a single volume, or differs in shape or affine; if the affine is
        sheared or singular; if the sidecar of a phase image declares another quantity.
    """
    _geometry(unit)
    for echo in unit.echoes:
        units = echo.metadata.get("Units")
        if echo.phase is not None and units is not None and str(units).lower() in ("hz", "ppm", "t", "rad/s"):
            raise InputError(
                f"{echo.phase}: Units: expected rad or arbitrary in the JSON sidecar, found {units!r}; "
                "a field map cannot take the place of phase"
            )


def load_acquisition(
    unit: ProcessingUnit, *, phase_sign: str = "auto", phase_range: tuple[float, float] | None = None
) -> Acquisition:
    """Arrays of ``unit``, with every correction of its vendor applied and noted.

    Parameters
    ----------
    unit
        What to load.
    phase_sign
        ``"+"`` takes the stored sign as it is, ``"-"`` inverts it, ``"auto"`` inverts it for makers who store the
        conjugate (GE).
    phase_range
        Values that mean -pi and +pi; overrides the rules of :mod:`qsmxt.bids.phase`.

    Raises
    ------
    MissingInputError, InputError
        As in :func:`check_unit`; if the scale of the phase cannot be told.
    ParameterError
        If ``phase_sign`` is not one of the three.
    """
    if phase_sign not in PHASE_SIGNS:
        raise ParameterError(f"phase sign: expected one of {', '.join(PHASE_SIGNS)}, found {phase_sign!r}")
    header, grid = _geometry(unit)
    loaded = _Loaded(notes=list(header.notes))
    try:
        if all(echo.phase is not None for echo in unit.echoes):
            phase = _load_polar(unit, phase_range, loaded)
        else:
            phase = _load_cartesian(unit, loaded)
    except InputError as error:
        raise InputError(f"{unit.name}: {error}") from None
    _correct_maker(unit, phase, phase_sign, loaded)
    magnitude = np.ones_like(phase) if loaded.magnitude is None else loaded.magnitude
    if loaded.magnitude is None:
        loaded.notes.append("no magnitude image: all voxels with signal weigh the same")
    _clear_background(phase, magnitude, loaded)
    _compare_frequency(unit, loaded)
    return Acquisition(
        wrapped_phase=phase,
        magnitude=magnitude,
        echo_times=np.array([echo.echo_time for echo in unit.echoes], dtype=np.float64),
        field_strength=float(unit.field_strength),
        affine=header.affine,
        grid=grid,
        has_magnitude=loaded.magnitude is not None,
        notes=loaded.notes,
        corrections=loaded.corrections,
    )


@dataclass
class _Loaded:
    """What is learnt on the way besides the phase."""

    notes: list[str]
    corrections: dict[str, Any] = field(default_factory=dict)
    magnitude: np.ndarray | None = None
    filled: np.ndarray | None = None

    def note(self, key: str, value: Any, sentence: str) -> None:
        self.corrections[key] = value
        self.notes.append(sentence)


def _geometry(unit: ProcessingUnit) -> tuple[Header, Grid]:
    first, *others = [read_header(path) for path in unit.files()]
    for other in others:
        check_same_grid(first, other)
    try:
        return first, Grid.from_affine(first.affine, first.shape)
    except InputError as error:
        raise InputError(f"{first.path}: {error}") from None


def _load_polar(unit: ProcessingUnit, phase_range: tuple[float, float] | None, loaded: _Loaded) -> np.ndarray:
    images = [StoredPhase(*stored_values(echo.phase), echo.metadata) for echo in unit.echoes if echo.phase]
    phase, conversion = phase_to_radians(images, phase_range=phase_range)
    loaded.note("PhaseScale", conversion.reason, f"phase scale: {conversion.reason}")
    loaded.filled = fill_mask(images)
    del images
    magnitudes = [echo.magnitude for echo in unit.echoes if echo.magnitude is not None]
    if len(magnitudes) == len(unit.echoes):
        loaded.magnitude = np.empty_like(phase)
        for path, modulus in zip(magnitudes, loaded.magnitude, strict=True):
            _scale(path, modulus)
    elif all(echo.real is not None for echo in unit.echoes):
        loaded.magnitude = np.empty_like(phase)
        for echo, modulus in zip(unit.echoes, loaded.magnitude, strict=True):
            np.hypot(*_parts(echo), out=modulus)
    return phase


def _load_cartesian(unit: ProcessingUnit, loaded: _Loaded) -> np.ndarray:
    shape = read_header(unit.files()[0]).shape
    phase = np.empty((len(unit.echoes), *shape), dtype=np.float32)
    loaded.magnitude = np.empty_like(phase)
    for echo, angle, modulus in zip(unit.echoes, phase, loaded.magnitude, strict=True):
        real, imag = _parts(echo)
        np.arctan2(imag, real, out=angle)
        np.hypot(real, imag, out=modulus)
    wrap(phase)
    loaded.note("PhaseScale", "angle of real and imaginary part", "phase: angle of real and imaginary part")
    return phase


def _parts(echo: EchoFiles) -> tuple[np.ndarray, np.ndarray]:
    if echo.real is None or echo.imag is None:
        raise InputError(f"echo at {echo.echo_time:g} s: expected phase, or real and imaginary part, found neither")
    shape = read_header(echo.real).shape
    real, imag = (_scale(path, np.empty(shape, dtype=np.float32)) for path in (echo.real, echo.imag))
    for path, part in ((echo.real, real), (echo.imag, imag)):
        if part.size and part.min() >= 0:
            raise InputError(
                f"{path}: expected values of both signs, found {part.min():g} to {part.max():g}; "
                "the intercept of the header is lost: convert the images again"
            )
    return real, imag


def _scale(path: Path, values: np.ndarray) -> np.ndarray:
    """Scaled values, 0 where they are not finite, written to ``values`` (float32)."""
    stored, slope, intercept = stored_values(path)
    multiplied(stored, slope, values)
    if intercept != 0:
        values += np.float32(intercept)
    if stored.dtype.kind == "f":
        np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return values


def _correct_maker(unit: ProcessingUnit, phase: np.ndarray, phase_sign: str, loaded: _Loaded) -> None:
    """Undo what a maker does to the phase, slices of alternating sign and conjugation, unless a converter has."""
    metadata = unit.echoes[0].metadata
    maker = str(metadata.get("Manufacturer", ""))
    done = metadata.get(CORRECTIONS_KEY)
    done = done if isinstance(done, dict) else {}
    if is_conjugate(maker) and "SliceAlternation" not in done:
        axes = alternating_axes(phase, loaded.magnitude)
        if axes:
            undo_alternation(phase, axes)
            names = " and ".join("xyz"[axis] for axis in axes)
            loaded.note(
                "SliceAlternation", names, f"{maker}: sign alternates from slice to slice along {names}, undone"
            )
    conjugate = is_conjugate(maker) and "PhaseSign" not in done
    if phase_sign == "-" or (phase_sign == "auto" and conjugate):
        np.negative(phase, out=phase)
        why = "as requested" if phase_sign == "-" else f"{maker} stores the conjugate"
        loaded.note("PhaseSign", "inverted", f"phase inverted: {why}")
    else:
        before = f", {done['PhaseSign']} at conversion" if "PhaseSign" in done else ""
        loaded.note("PhaseSign", "as stored", f"phase sign as stored{before}: paramagnetic fields count as positive")


def _clear_background(phase: np.ndarray, magnitude: np.ndarray, loaded: _Loaded) -> None:
    """Phase 0 and magnitude 0 in voxels without signal, in place."""
    if loaded.filled is not None:
        share = 100 * float(loaded.filled.mean())
        loaded.note("FilledVoxels", int(loaded.filled.sum()), f"a constant fills {share:.1f} % of the phase: no signal")
        magnitude[loaded.filled] = 0
    np.maximum(magnitude, 0, out=magnitude)
    if not magnitude.any():
        raise InputError("magnitude: expected signal, found zeros only; export the images again")
    phase[magnitude == 0] = 0


def _compare_frequency(unit: ProcessingUnit, loaded: _Loaded) -> None:
    """Remark if the frequency of the scanner tells another field than the nominal one, which scales all ppm."""
    frequency = unit.echoes[0].metadata.get("ImagingFrequency")
    if not isinstance(frequency, (int, float)) or isinstance(frequency, bool) or not frequency > 0:
        return
    measured = float(frequency) * 1e6 / GAMMA_BAR_HZ_PER_T
    difference = measured / unit.field_strength - 1
    if LEAST_DIFFERENCE < abs(difference) < GREATEST_DIFFERENCE:
        loaded.notes.append(
            f"field strength: {unit.field_strength:g} T is used; the imaging frequency of {frequency:g} MHz tells "
            f"{measured:.4g} T ({100 * difference:+.1f} %), by which susceptibilities in ppm are scaled"
        )
