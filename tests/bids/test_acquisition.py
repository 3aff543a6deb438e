"""Loading a unit: sign, makers, background, geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qsmxt.bids.acquisition import Acquisition, check_unit, load_acquisition
from qsmxt.bids.queries import find_units
from qsmxt.errors import InputError, MissingInputError, ParameterError
from tests.bids.datasets import AFFINE, Dataset, write_image

SHAPE = (12, 10, 8)
TIMES = (0.004, 0.008)
METADATA = {"MagneticFieldStrength": 3.0, "Units": "arbitrary"}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "raw")


def field_hz() -> np.ndarray:
    """A smooth field that is higher towards +x, Hz."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return 80 * x + 30 * y * z


def signal(echo_time: float, *, conjugate: bool = False) -> np.ndarray:
    """Complex signal with phase growing with the field; magnitude 100 to 200."""
    x = np.linspace(0, 1, SHAPE[0])[:, None, None]
    phase = 2 * np.pi * field_hz() * echo_time + 0.3
    return (100 + 100 * x) * np.exp(1j * (-phase if conjugate else phase))


def write_polar(dataset: Dataset, signals: list[np.ndarray], **header: object) -> None:
    for number, values in enumerate(signals, start=1):
        metadata = {**METADATA, "EchoTime": TIMES[number - 1], **dict(header.get("metadata", {}))}
        geometry = {key: value for key, value in header.items() if key != "metadata"}
        steps = np.int16(np.clip(np.rint(np.angle(values) / np.pi * 2048) * 2, -4096, 4094))
        steps.flat[:2] = -4096, 4094
        dataset.image(f"sub-1_echo-{number}_part-phase", "MEGRE", steps, metadata, **geometry)
        magnitude = np.abs(values).astype(np.float32)
        dataset.image(f"sub-1_echo-{number}_part-mag", "MEGRE", magnitude, metadata, **geometry)


def write_cartesian(dataset: Dataset, signals: list[np.ndarray], **metadata: object) -> None:
    for number, values in enumerate(signals, start=1):
        own = {"MagneticFieldStrength": 3.0, "EchoTime": TIMES[number - 1], **metadata}
        for part, numbers in (("real", values.real), ("imag", values.imag)):
            # as Philips: unsigned integers with slope and intercept
            stored = np.uint16(np.rint((numbers + 400) / 0.02))
            dataset.image(f"sub-1_echo-{number}_part-{part}", "MEGRE", stored, own, slope=(0.02, -400.0))


def load(dataset: Dataset, **options: object) -> Acquisition:
    selection = find_units(dataset.root)
    assert selection.rejected == ()
    return load_acquisition(selection.units[0], **options)


def wrapped(difference: np.ndarray) -> np.ndarray:
    return np.angle(np.exp(1j * np.asarray(difference, dtype=np.float64)))


def measured_hz(acquisition: Acquisition) -> np.ndarray:
    """Field from the two echoes; positive where phase grows with time."""
    first, second = acquisition.wrapped_phase.astype(np.float64)
    return wrapped(second - first) / (2 * np.pi * (acquisition.echo_times[1] - acquisition.echo_times[0]))


def inside(values: np.ndarray) -> np.ndarray:
    """Without the two voxels that were overwritten to fill the scale."""
    return values.reshape(*values.shape[:-3], -1)[..., 2:]


def test_arrays_of_a_plain_acquisition(dataset: Dataset) -> None:
    write_polar(dataset, [signal(time) for time in TIMES])
    loaded = load(dataset)
    assert loaded.wrapped_phase.shape == loaded.magnitude.shape == (2, *SHAPE)
    assert loaded.wrapped_phase.dtype == loaded.magnitude.dtype == np.float32
    assert loaded.wrapped_phase.flags.c_contiguous and loaded.magnitude.flags.c_contiguous
    assert loaded.echo_times.dtype == np.float64 and loaded.echo_times.tolist() == list(TIMES)
    assert loaded.field_strength == 3.0 and loaded.has_magnitude
    assert loaded.grid.shape == SHAPE and loaded.grid.voxel_size == (1.0, 1.0, 2.0)
    assert np.array_equal(loaded.affine, AFFINE)
    truth = np.stack([signal(time) for time in TIMES])
    assert np.abs(inside(wrapped(loaded.wrapped_phase - np.angle(truth)))).max() < 2 * np.pi / 4096
    assert np.allclose(loaded.magnitude, np.abs(truth), rtol=1e-6)


def test_paramagnetic_is_positive(dataset: Dataset) -> None:
    """The field that is higher towards +x comes out higher towards +x."""
    write_polar(dataset, [signal(time) for time in TIMES], metadata={"Manufacturer": "Siemens"})
    loaded = load(dataset)
    assert np.abs(inside(measured_hz(loaded) - field_hz())).max() < 1
    assert loaded.corrections["PhaseSign"] == "as stored"


@pytest.mark.parametrize("form", ["polar", "cartesian"])
@pytest.mark.parametrize("alternating", [False, True])
def test_ge_is_conjugated_and_alternation_undone(dataset: Dataset, form: str, alternating: bool) -> None:
    sign = (-1.0) ** np.arange(SHAPE[2]) if alternating else 1.0
    signals = [signal(time, conjugate=True) * sign for time in TIMES]
    if form == "polar":
        write_polar(dataset, signals, metadata={"Manufacturer": "GE MEDICAL SYSTEMS"})
    else:
        write_cartesian(dataset, signals, Manufacturer="GE")
    loaded = load(dataset)
    assert np.abs(inside(measured_hz(loaded) - field_hz())).max() < 1
    # the phase itself, not only its difference, is smooth again
    truth = np.angle(np.stack([signal(time) for time in TIMES]))
    offset = inside(wrapped(loaded.wrapped_phase - truth))
    assert np.abs(wrapped(offset - offset[0, 0])).max() < 0.01
    assert ("SliceAlternation" in loaded.corrections) is alternating
    assert loaded.corrections["PhaseSign"] == "inverted"


def test_what_the_converter_corrected_is_not_corrected_again(dataset: Dataset) -> None:
    corrections = {"PhaseScale": "values are radians", "SliceAlternation": "z", "PhaseSign": "inverted"}
    metadata = {"Manufacturer": "GE", "PhaseCorrections": corrections}
    write_polar(dataset, [signal(time) for time in TIMES], metadata=metadata)
    loaded = load(dataset)
    assert np.abs(inside(measured_hz(loaded) - field_hz())).max() < 1
    assert loaded.corrections["PhaseSign"] == "as stored"
    assert any("inverted at conversion" in note for note in loaded.notes)


def test_other_makers_keep_their_complex_data(dataset: Dataset) -> None:
    """Corrections for GE must not touch real and imaginary parts of anybody else."""
    sign = (-1.0) ** np.arange(SHAPE[2])
    signals = [signal(time) * sign for time in TIMES]
    write_cartesian(dataset, signals, Manufacturer="Philips")
    loaded = load(dataset)
    assert np.abs(wrapped(loaded.wrapped_phase - np.angle(np.stack(signals)))).max() < 1e-3


def test_sign_can_be_given(dataset: Dataset) -> None:
    write_polar(dataset, [signal(time) for time in TIMES], metadata={"Manufacturer": "GE"})
    automatic, kept, inverted = (load(dataset, phase_sign=sign).wrapped_phase for sign in ("auto", "+", "-"))
    assert np.array_equal(automatic, inverted)
    assert np.array_equal(kept, -inverted)
    assert np.abs(inside(wrapped(kept[0] - np.angle(signal(TIMES[0]))))).max() < 2 * np.pi / 4096
    with pytest.raises(ParameterError, match="phase sign"):
        load(dataset, phase_sign="minus")


def test_real_and_imaginary_parts_equal_magnitude_and_phase(tmp_path: Path) -> None:
    signals = [signal(time) for time in TIMES]
    polar, cartesian = Dataset(tmp_path / "polar"), Dataset(tmp_path / "cartesian")
    write_polar(polar, signals)
    write_cartesian(cartesian, signals)
    first, second = load(polar), load(cartesian)
    assert np.abs(inside(wrapped(first.wrapped_phase - second.wrapped_phase))).max() < 0.002
    assert np.abs(first.magnitude - second.magnitude).max() < 0.02


def test_lost_intercept_of_complex_data_is_refused(dataset: Dataset) -> None:
    for number, time in enumerate(TIMES, start=1):
        for part, numbers in (("real", signal(time).real), ("imag", signal(time).imag)):
            stored = np.uint16(np.rint(numbers + 400))
            own = {"MagneticFieldStrength": 3.0, "EchoTime": time}
            dataset.image(f"sub-1_echo-{number}_part-{part}", "MEGRE", stored, own)
    with pytest.raises(InputError, match="intercept"):
        load(dataset)


def test_phase_alone(dataset: Dataset) -> None:
    write_polar(dataset, [signal(time) for time in TIMES])
    for path in dataset.root.rglob("*part-mag*"):
        path.unlink()
    loaded = load(dataset)
    assert not loaded.has_magnitude
    assert (loaded.magnitude == 1).all()


def test_background_has_neither_phase_nor_magnitude(dataset: Dataset) -> None:
    """NaN, zero magnitude and filling values all mean no signal, and nothing random takes their place."""
    signals = [signal(time) for time in TIMES]
    for number, values in enumerate(signals, start=1):
        phase, magnitude = np.angle(values).astype(np.float32), np.abs(values).astype(np.float32)
        phase[:2], magnitude[:2] = 0, 7  # filled phase over noise
        phase[2, 0, 0], magnitude[3, 0, 0] = np.nan, np.nan
        magnitude[4, 0, 0] = 0
        metadata = {**METADATA, "Units": "rad", "EchoTime": TIMES[number - 1]}
        dataset.image(f"sub-1_echo-{number}_part-phase", "MEGRE", phase, metadata)
        dataset.image(f"sub-1_echo-{number}_part-mag", "MEGRE", magnitude, metadata)
    loaded = load(dataset)
    again = load(dataset)
    for array in (loaded.wrapped_phase, loaded.magnitude):
        assert np.isfinite(array).all()
        assert (array[:, :2] == 0).all() and (array[:, 3:5, 0, 0] == 0).all()
    assert (loaded.wrapped_phase[:, 2, 0, 0] == 0).all()
    rest = wrapped(loaded.wrapped_phase - np.angle(np.stack(signals)))[:, 5:]
    assert np.abs(rest).max() < 1e-6
    assert np.array_equal(loaded.wrapped_phase, again.wrapped_phase)


def test_magnitude_of_zeros_is_refused(dataset: Dataset) -> None:
    write_polar(dataset, [signal(time) for time in TIMES])
    for number in (1, 2):
        write_image(dataset.path(f"sub-1_echo-{number}_part-mag", "MEGRE"), np.zeros(SHAPE, np.int16))
    with pytest.raises(InputError, match="magnitude"):
        load(dataset)


def test_unknown_scale_names_the_unit_and_the_remedy(dataset: Dataset) -> None:
    for number, time in enumerate(TIMES, start=1):
        values = (np.angle(signal(time)) + 5) * 100
        metadata = {**METADATA, "EchoTime": time}
        dataset.image(f"sub-1_echo-{number}_part-phase", "MEGRE", values.astype(np.float32), metadata)
    with pytest.raises(InputError, match=r"sub-1_MEGRE.*--phase-range"):
        load(dataset)
    loaded = load(dataset, phase_range=(500 - 100 * np.pi, 500 + 100 * np.pi))
    assert np.abs(wrapped(loaded.wrapped_phase[0] - np.angle(signal(TIMES[0])))).max() < 1e-4


def test_file_that_vanished(dataset: Dataset) -> None:
    write_polar(dataset, [signal(time) for time in TIMES])
    (unit,) = find_units(dataset.root).units
    unit.echoes[1].phase.unlink()
    for function in (check_unit, load_acquisition):
        with pytest.raises(MissingInputError, match="echo-2_part-phase"):
            function(unit)


@pytest.mark.parametrize(("frequency", "noted"), [(123.247, True), (127.73, False), (51.7, False), ("?", False)])
def test_frequency_that_contradicts_the_nominal_field_is_noted(
    dataset: Dataset, frequency: object, noted: bool
) -> None:
    """Siemens sells 2.89 T as 3 T; the nominal value is used, and the difference said."""
    write_polar(dataset, [signal(time) for time in TIMES], metadata={"ImagingFrequency": frequency})
    loaded = load(dataset)
    assert loaded.field_strength == 3.0
    assert any("2.895 T (-3.5 %)" in note for note in loaded.notes) is noted


# geometry


def oblique(
    angle: float, order: tuple[int, int, int] = (0, 1, 2), flips: tuple[int, int, int] = (1, 1, 1)
) -> np.ndarray:
    """Affine tilted by ``angle`` (degrees) about x, with permuted and flipped voxel axes, 1 x 1.5 x 3 mm."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    rotation = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = (rotation @ np.diag(flips))[:, order] * np.array([1.0, 1.5, 3.0])[list(order)]
    affine[:3, 3] = 5, -7, 11
    return affine


@pytest.mark.parametrize("angle", [0, 25, -40])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_direction_of_b0(
    dataset: Dataset, angle: float, order: tuple[int, int, int], flips: tuple[int, int, int]
) -> None:
    write_polar(dataset, [signal(time) for time in TIMES], affine=oblique(angle, order, flips))
    grid = load(dataset).grid
    along = np.array([0, np.sin(np.radians(angle)) * flips[1], np.cos(np.radians(angle)) * flips[2]])[list(order)]
    assert np.allclose(grid.b0_direction, along, atol=1e-6)
    assert np.allclose(grid.voxel_size, np.array([1.0, 1.5, 3.0])[list(order)], atol=1e-5)


def test_scanner_frame_is_preferred_to_a_template(dataset: Dataset) -> None:
    """An sform to MNI space rotates B0; the qform still holds the scanner frame."""
    write_polar(dataset, [signal(time) for time in TIMES], affine=oblique(30), codes=(4, 1), qform=oblique(10))
    loaded = load(dataset)
    assert np.degrees(loaded.grid.obliquity) == pytest.approx(10, abs=1e-3)
    assert np.allclose(loaded.affine, oblique(10), atol=1e-5)
    assert any("20.0 degrees" in note and "qform" in note for note in loaded.notes)


def test_differing_scanner_frames_are_noted_and_the_sform_counts(dataset: Dataset) -> None:
    write_polar(dataset, [signal(time) for time in TIMES], affine=oblique(30), codes=(1, 1), qform=oblique(25))
    loaded = load(dataset)
    assert np.degrees(loaded.grid.obliquity) == pytest.approx(30, abs=1e-3)
    assert any("5.0 degrees" in note for note in loaded.notes)


def test_header_without_orientation(dataset: Dataset) -> None:
    write_polar(dataset, [signal(time) for time in TIMES], codes=(0, 0))
    loaded = load(dataset)
    assert loaded.grid.b0_direction == (0.0, 0.0, 1.0)
    assert any("B0" in note for note in loaded.notes)


def test_template_frame_alone_is_noted(dataset: Dataset) -> None:
    write_polar(dataset, [signal(time) for time in TIMES], affine=oblique(15), codes=(4, 0))
    assert any("MNI152" in note for note in load(dataset).notes)
