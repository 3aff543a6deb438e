"""From NIfTI and PAR/REC to BIDS: cells from names, sidecars, values and flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from qsmxt.bids.acquisition import load_acquisition
from qsmxt.bids.queries import find_units
from qsmxt.bids.validation import find_validator, validate
from qsmxt.convert.nifti import NiftiSettings, convert_nifti, output_of, read_nifti_table
from qsmxt.convert.nifti_table import PRESETS, NiftiRow, check_table, fill_from_names, missing_cells, save_table
from qsmxt.errors import InputError, MissingInputError, ParameterError, SelectionError
from qsmxt.phantom.head import Head

TIMES = (0.004, 0.010, 0.016)
GIVEN = {"sub": "1", "MagneticFieldStrength": "3"}


def save(path: Path, values: np.ndarray, affine: np.ndarray, **sidecar: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    if sidecar:
        path.with_name(path.name.partition(".nii")[0] + ".json").write_text(json.dumps(sidecar))
    return path


def head_files(folder: Path, head: Head) -> None:
    """What a research scan often looks like: two 4-D files, phase as scanner steps."""
    steps = np.rint(head.wrapped_phase / np.pi * 4096).clip(-4096, 4094).astype(np.int16)
    save(folder / "magnitude.nii", np.moveaxis(head.magnitude, 0, -1), head.affine)
    save(folder / "other.nii.gz", np.moveaxis(steps, 0, -1), head.affine)


def named(path: str) -> NiftiRow:
    row = NiftiRow(path)
    for preset in ("qsmxt", "dcm2niix", "words"):
        fill_from_names([row], PRESETS[preset])
    return row


@pytest.mark.parametrize(
    ("path", "cells"),
    [
        ("sub-07/ses-a/anat/sub-07_ses-a_acq-x_rec-y_run-02_echo-3_inv-1_part-phase_MEGRE.nii.gz",
         {"subject": "07", "session": "a", "acquisition": "x", "reconstruction": "y", "run": 2, "echo": 3,
          "inversion": 1, "part": "phase", "suffix": "MEGRE"}),
        ("sub-1_echo-1_part-mag_B3.0_TE0.012_MEGRE.nii", {"echo_time": 0.012, "field_strength": 3.0, "part": "mag"}),
        ("0301_gre_e2_ph.nii.gz", {"echo": 2, "part": "phase"}),
        ("0301_gre_e2.nii.gz", {"echo": 2, "part": ""}),
        ("0301_gre_e1_imaginary.nii", {"echo": 1, "part": "imag"}),
        ("patient12/Mag_echo3.nii", {"subject": "12", "part": "mag", "echo": 3}),
        ("subject_5/Phase.nii", {"subject": "5", "part": "phase"}),
        ("image_B0_map_e1.nii", {"field_strength": None, "echo": 1}),
        ("phasediff/emphasis.nii", {"part": ""}),
        ("sub-1_T1w.nii", {"subject": "1", "suffix": "T1w"}),
    ],
)  # fmt: skip
def test_names(path: str, cells: dict[str, Any]) -> None:
    row = named(path)
    assert {name: getattr(row, name) for name in cells} == cells


def test_head_in_two_files_comes_back(head: Head, tmp_path: Path) -> None:
    """4-D files are split, phase is found by its values, echo times are given."""
    head_files(tmp_path / "src", head)
    rows = read_nifti_table(tmp_path / "src", NiftiSettings(values=GIVEN, echo_times=TIMES))
    assert [(r.volume, r.part, r.echo, r.echo_time) for r in rows] == [
        (v, part, v + 1, TIMES[v]) for part in ("mag", "phase") for v in range(3)
    ]
    report = convert_nifti(rows, tmp_path / "src", tmp_path / "bids")
    assert (len(report.written), report.problems, report.warnings) == (6, [], [])
    if find_validator() is not None:
        assert validate(tmp_path / "bids") == []
    (unit,) = find_units(tmp_path / "bids").units
    acquisition = load_acquisition(unit)
    np.testing.assert_allclose(acquisition.echo_times, TIMES)
    np.testing.assert_allclose(acquisition.affine, head.affine, atol=1e-5)
    difference = np.abs(np.angle(np.exp(1j * (acquisition.wrapped_phase - head.wrapped_phase))))
    assert difference.max() < np.pi / 4096 * 2.01
    np.testing.assert_allclose(acquisition.magnitude, head.magnitude, rtol=1e-6)


def test_stored_numbers_stay(head: Head, tmp_path: Path) -> None:
    head_files(tmp_path / "src", head)
    rows = read_nifti_table(tmp_path / "src", NiftiSettings(values=GIVEN, echo_times=TIMES))
    report = convert_nifti(rows, tmp_path / "src", tmp_path / "bids")
    original = np.asanyarray(nibabel.load(tmp_path / "src" / "other.nii.gz").dataobj.get_unscaled())
    phases = [path for path in report.written if "part-phase" in path.name]
    for echo, path in enumerate(phases):
        np.testing.assert_array_equal(nibabel.load(path).dataobj.get_unscaled(), original[..., echo])
        assert json.loads(path.with_suffix("").with_suffix(".json").read_text())["Units"] == "rad"


def test_makers_sign_is_left_to_the_reconstruction(head: Head, tmp_path: Path) -> None:
    """Nobody knows what was corrected before: the sidecar must not claim anything about sign and slices."""
    facts = {"Manufacturer": "GE", "EchoTime": 0.02, "MagneticFieldStrength": 3}
    save(tmp_path / "src" / "sub-1_part-phase.nii", -head.wrapped_phase[0], head.affine, **facts)
    rows = read_nifti_table(tmp_path / "src")
    report = convert_nifti(rows, tmp_path / "src", tmp_path / "bids")
    sidecar = json.loads(report.written[0].with_suffix("").with_suffix(".json").read_text())
    assert set(sidecar["PhaseCorrections"]) == {"PhaseScale"}
    np.testing.assert_array_equal(nibabel.load(report.written[0]).get_fdata(), -head.wrapped_phase[0])


def test_sidecar_beats_words_and_identity_is_dropped(head: Head, tmp_path: Path) -> None:
    facts = {"ImageType": ["ORIGINAL", "PRIMARY", "M"], "EchoTime": 0.02, "MagneticFieldStrength": 7,
             "PatientName": "Bond", "BidsGuess": ["anat", "x"]}  # fmt: skip
    save(tmp_path / "src" / "Phase_study_e1.nii", head.magnitude[0], head.affine, **facts)
    rows = read_nifti_table(tmp_path / "src", NiftiSettings(values={"sub": "1"}))
    assert (rows[0].part, rows[0].field_strength, rows[0].suffix) == ("mag", 7.0, "T2starw")
    report = convert_nifti(rows, tmp_path / "src", tmp_path / "bids")
    text = report.written[0].with_suffix("").with_suffix(".json").read_text()
    assert "Bond" not in text and "BidsGuess" not in text
    assert report.written[0].name == "sub-1_T2starw.nii.gz"


def test_flags_go_before_sidecars_and_patterns_before_presets(head: Head, tmp_path: Path) -> None:
    save(tmp_path / "src" / "sub-1_x9_part-mag_T2starw.nii", head.magnitude[0], head.affine, EchoTime=0.02,
         MagneticFieldStrength=7)  # fmt: skip
    settings = NiftiSettings(patterns={"sub": r"_x(\d)"}, values={"MagneticFieldStrength": "3", "sub": "5"})
    row = read_nifti_table(tmp_path / "src", settings)[0]
    assert (row.subject, row.field_strength) == ("9", 3.0)


def test_table_is_saved_filled_and_replayed(head: Head, tmp_path: Path) -> None:
    head_files(tmp_path / "src", head)
    rows = read_nifti_table(tmp_path / "src")
    assert {cell for _, cell in missing_cells(rows)} == {"subject", "echo_time", "field_strength"}
    path = save_table(tmp_path / "table.tsv", rows)
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    header = lines[0]
    for line in lines[1:]:
        line[header.index("sub")] = "sub-9"
        line[header.index("EchoTime")] = str(TIMES[int(line[header.index("volume")])])
        line[header.index("MagneticFieldStrength")] = "3"
    path.write_text("\n".join("\t".join(line) for line in lines[:-1]) + "\n")
    again = read_nifti_table(tmp_path / "src", NiftiSettings(table=path))
    assert [row.suffix for row in again] == ["MEGRE"] * 5 + ["skip"]  # what is not listed is left out
    assert check_table(again) == []
    assert str(output_of(again[0], again)) == "sub-9/anat/sub-9_echo-01_part-mag_MEGRE"


def test_incomplete_and_contradictory_tables_are_refused_by_name(head: Head, tmp_path: Path) -> None:
    head_files(tmp_path / "src", head)
    rows = read_nifti_table(tmp_path / "src", NiftiSettings(values=GIVEN, echo_times=TIMES))
    rows[1].echo, rows[1].echo_time = 1, 0.02
    rows[2].subject = "../x"
    rows[3].echo_time = 4.0
    rows[4].shape = (1, 1, 1)
    text = "\n".join(check_table(rows))
    assert "magnitude.nii, volume 1: would get the same name as magnitude.nii, volume 0" in text
    assert "volume 2: sub: expected letters and digits" in text
    assert "other.nii.gz, volume 0: EchoTime: expected seconds" in text
    assert "other.nii.gz, volume 1: shape (1, 1, 1)" in text
    with pytest.raises(InputError, match="cannot be converted"):
        convert_nifti(rows, tmp_path / "src", tmp_path / "bids")
    assert not (tmp_path / "bids").exists()


def test_magnitude_in_scanner_steps_is_not_taken_for_phase(tmp_path: Path) -> None:
    """0..4095 can be either; magnitude is dark at its upper end, phase is flat."""
    rng = np.random.default_rng(0)
    magnitude = (rng.rayleigh(300, (16, 16, 16))).clip(0, 4095).astype(np.int16)
    magnitude[0, 0, 0] = 4095
    save(tmp_path / "a.nii", magnitude, np.eye(4))
    save(tmp_path / "b.nii", rng.integers(-4096, 4095, (16, 16, 16)).astype(np.int16), np.eye(4))
    save(tmp_path / "c.nii", rng.integers(0, 4096, (16, 16, 16)).astype(np.int16), np.eye(4))
    assert [row.part for row in read_nifti_table(tmp_path)] == ["mag", "phase", ""]  # the last one has to be told


def test_nothing_is_overwritten_unless_told(head: Head, tmp_path: Path) -> None:
    head_files(tmp_path / "src", head)
    rows = read_nifti_table(tmp_path / "src", NiftiSettings(values=GIVEN, echo_times=TIMES))
    convert_nifti(rows, tmp_path / "src", tmp_path / "bids")
    assert len(convert_nifti(rows, tmp_path / "src", tmp_path / "bids").kept) == 1
    assert len(convert_nifti(rows, tmp_path / "src", tmp_path / "bids", overwrite=True).written) == 6


def test_wrong_requests(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        read_nifti_table(tmp_path / "nothing")
    with pytest.raises(SelectionError):
        read_nifti_table(tmp_path)
    save(tmp_path / "sub-1_part-mag.nii", np.zeros((2, 2, 2), np.float32), np.eye(4))
    for settings in (
        NiftiSettings(patterns={"colour": "x"}),
        NiftiSettings(patterns={"sub": "("}),
        NiftiSettings(preset="mine"),
        NiftiSettings(echo_times=(4.0, 8.0)),
    ):
        with pytest.raises(ParameterError):
            read_nifti_table(tmp_path, settings)
    (tmp_path / "broken.nii").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"broken\.nii"):
        read_nifti_table(tmp_path)


def test_real_par_rec(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "phantom-philips-parrec" / "PARREC"
    rows = read_nifti_table(source, NiftiSettings(values=GIVEN))
    assert [(row.part, row.echo_time, row.suffix) for row in rows] == [
        ("mag", 0.007, "T2starw"),
        ("phase", 0.007, "skip"),
    ]
    report = convert_nifti(rows, source, tmp_path)
    image = nibabel.load(report.written[0])
    assert image.shape == (80, 80, 10)
    assert image.get_fdata().max() == pytest.approx(6833.1, abs=0.1)


def test_real_crop_with_odd_phase_unit(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "brain-crop-gre-3echo"
    rows = read_nifti_table(source, NiftiSettings(values=GIVEN, echo_times=(0.004, 0.008, 0.012)))
    report = convert_nifti(rows, source, tmp_path)
    phase = nibabel.load(next(path for path in report.written if "part-phase" in path.name)).get_fdata()
    assert np.abs(phase).max() == pytest.approx(np.pi, rel=1e-3)
    if find_validator() is not None:
        assert validate(tmp_path) == []


def test_real_philips_with_all_four_parts(real_data: Path) -> None:
    source = real_data / "abdomen-philips-real-imag"
    rows = read_nifti_table(source, NiftiSettings(values={"sub": "1"}, patterns={"run": r"^0(\d\d)01"}))
    assert check_table(rows) == []
    assert {(row.echo, row.part) for row in rows} == {(e, p) for e in (1, 2) for p in ("mag", "phase", "real", "imag")}
