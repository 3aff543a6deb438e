"""Maps as DICOM: what is read back, whose it is, where it lies."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from qsmxt.convert.dcm2niix import find_program
from qsmxt.convert.export import KINDS, export_dicom, quantise, radiological
from qsmxt.convert.headers import read_frames
from qsmxt.errors import InputError, MissingInputError, OutputError, ParameterError
from tests.convert.scanner import Exam, write_siemens

ROTATION = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.2, 0.15) @ np.diag([2.0, 1.5, 3.0]), [4, -7, 9]
)
#: Voxel axes that run along the axes of the body in other orders and directions.
SAGITTAL = np.array([[0, 0, 2.5, -9], [1.0, 0, 0, 3], [0, 1.2, 0, 5], [0, 0, 0, 1]])
CORONAL = np.array([[-1.0, 0, 0, 30], [0, 0, 2.0, -8], [0, 1.0, 0, 2], [0, 0, 0, 1]])

#: Attributes of type 1 (a value) and type 2 (present) of the modules of MR Image Storage.
TYPE_1 = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
    "ImageType", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient",
    "ScanningSequence", "SequenceVariant", "PixelData",
)  # fmt: skip
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber", "SeriesNumber", "PositionReferenceIndicator", "Manufacturer", "InstanceNumber",
    "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength", "SliceThickness",
    "PatientPosition", "ContentDate", "ContentTime",
)  # fmt: skip


def chi_map(
    folder: Path, affine: np.ndarray = ROTATION, shape: tuple[int, int, int] = (6, 5, 4)
) -> tuple[Path, np.ndarray]:
    values = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
    values[0] = 0
    path = folder / "sub-07_ses-20240315_acq-x_Chimap.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path, values


def read_series(paths: list[Path]) -> list[pydicom.FileDataset]:
    return [pydicom.dcmread(path) for path in paths]


@pytest.mark.parametrize("affine", [ROTATION, SAGITTAL, CORONAL], ids=["oblique", "sagittal", "coronal"])
def test_every_voxel_lies_where_it_was(tmp_path: Path, affine: np.ndarray) -> None:
    """Value and patient position of every pixel against the NIfTI image."""
    path, values = chi_map(tmp_path, affine)
    to_voxel = np.linalg.inv(affine)
    for dataset in read_series(export_dicom(path, {}, tmp_path / "out")):
        orientation = np.array(dataset.ImageOrientationPatient, dtype=float)
        spacing = [float(v) for v in dataset.PixelSpacing]
        decoded = dataset.pixel_array * float(dataset.RescaleSlope) / 1e3
        for (row, column), value in np.ndenumerate(decoded):
            lps = np.array(dataset.ImagePositionPatient, dtype=float)
            lps = lps + orientation[:3] * spacing[1] * column + orientation[3:] * spacing[0] * row
            voxel = to_voxel @ np.array([-lps[0], -lps[1], lps[2], 1.0])
            index = tuple(np.rint(voxel[:3]).astype(int))
            assert np.abs(voxel[:3] - index).max() < 1e-5
            assert abs(value - values[index]) <= float(dataset.RescaleSlope) / 2e3 * 1.001


def test_planes_are_seen_in_the_radiological_way() -> None:
    for affine in (ROTATION, SAGITTAL, CORONAL, np.diag([1.0, 1.0, 1.0, 1.0])):
        _, lps = radiological(np.zeros((6, 5, 4)), affine)
        columns, rows = lps[:3, 0], lps[:3, 1]
        along = (int(np.argmax(np.abs(columns))), int(np.argmax(np.abs(rows))))
        assert along in ((0, 1), (0, 2), (1, 2))
        assert columns[along[0]] > 0  # towards left or back
        assert rows[along[1]] * (-1 if along[1] == 2 else 1) > 0  # towards back or feet


@pytest.mark.parametrize("multiframe", [False, True])
def test_other_programs_read_the_same(tmp_path: Path, multiframe: bool) -> None:
    path, values = chi_map(tmp_path)
    assert len(export_dicom(path, {}, tmp_path / "out", multiframe=multiframe)) == (1 if multiframe else 4)
    command = [str(find_program()), "-b", "n", "-z", "n", "-f", "back", "-o", str(tmp_path), str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    back = nibabel.as_closest_canonical(nibabel.load(tmp_path / "back.nii"))
    expected = nibabel.as_closest_canonical(nibabel.load(path))
    np.testing.assert_allclose(back.affine, expected.affine, atol=1e-4)
    limit = np.abs(values).max() / 65534 * 1.01
    assert np.abs(back.get_fdata() / 1e3 - expected.get_fdata()).max() <= limit


def test_zero_stays_zero_and_whole_numbers_stay_whole() -> None:
    stored, slope = quantise(np.array([0.0, 1e-4, -0.3, np.nan]))
    assert stored[0] == 0 and stored[3] == 0 and abs(int(stored[2])) == 32767
    np.testing.assert_allclose(stored[:3] * float(slope), [0, 1e-4, -0.3], atol=0.3 / 65534 * 1.001)
    stored, slope = quantise(np.array([0, 17, 2035]))
    assert slope == "1" and stored.tolist() == [0, 17, 2035]
    assert quantise(np.zeros(3))[1] == "1"


def test_required_attributes_and_times_in_milliseconds(tmp_path: Path) -> None:
    path, _ = chi_map(tmp_path)
    facts = {"EchoTime": 0.0123, "RepetitionTime": 0.04, "MagneticFieldStrength": 3, "ScanningSequence": "GR",
             "SequenceVariant": "SP\\OSP", "FlipAngle": 15}  # fmt: skip
    with pydicom.config.strict_reading():
        datasets = read_series(export_dicom(path, facts, tmp_path / "out"))
    for dataset in datasets:
        assert [name for name in TYPE_1 if dataset.get(name) in (None, "", [])] == []
        assert [name for name in TYPE_2 if name not in dataset] == []
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert (float(dataset.EchoTime), float(dataset.RepetitionTime)) == (12.3, 40.0)
        assert list(dataset.SequenceVariant) == ["SP", "OSP"]
        assert list(dataset.ImageType) == ["DERIVED", "SECONDARY", "OTHER", "QSM"]
        mapping = dataset.RealWorldValueMappingSequence[0]
        assert mapping.RealWorldValueSlope == float(dataset.RescaleSlope)
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[ppb]"
    assert [int(dataset.InstanceNumber) for dataset in datasets] == [1, 2, 3, 4]
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == 4
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 1


def test_several_echo_times_are_none(tmp_path: Path) -> None:
    path, _ = chi_map(tmp_path)
    dataset = read_series(export_dicom(path, {"EchoTime": [0.004, 0.01]}, tmp_path / "out"))[0]
    assert dataset.EchoTime is None and dataset.EchoTrainLength == 2


def test_relaxation_time_is_in_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "sub-1_T2starmap.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full((3, 3, 3), 0.0305, np.float32), np.eye(4)), path)
    dataset = read_series(export_dicom(path, None, tmp_path / "out"))[0]
    np.testing.assert_allclose(dataset.pixel_array * float(dataset.RescaleSlope), 30.5, rtol=1e-4)
    assert dataset.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "ms"


def test_same_map_gives_the_same_bytes_and_another_map_another_series(tmp_path: Path) -> None:
    path, values = chi_map(tmp_path)
    first = export_dicom(path, {}, tmp_path / "a")
    second = export_dicom(path, {}, tmp_path / "b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    nibabel.save(nibabel.Nifti1Image(values * 2, ROTATION), path)
    other = read_series(export_dicom(path, {}, tmp_path / "c"))[0]
    mine = read_series(first)[0]
    assert mine.SeriesInstanceUID != other.SeriesInstanceUID
    assert mine.StudyInstanceUID == other.StudyInstanceUID  # of the same subject and session


def test_series_joins_the_study_of_its_source(tmp_path: Path) -> None:
    path, values = chi_map(tmp_path)
    exam = Exam(
        ROTATION, patient_name="Müller^Jürgen", extra={"SpecificCharacterSet": "ISO_IR 192", "AccessionNumber": "A1"}
    )
    write_siemens(tmp_path / "scan", exam, np.abs(values)[None], values[None], [0.01])
    (tmp_path / "scan" / "README").write_text("not an image")
    dataset = read_series(export_dicom(path, {}, tmp_path / "out", tmp_path / "scan"))[0]
    assert (dataset.PatientID, str(dataset.PatientName)) == ("P-007", "Müller^Jürgen")
    assert (dataset.StudyInstanceUID, dataset.FrameOfReferenceUID) == (exam.uid(), exam.uid(9999))
    assert (dataset.AccessionNumber, dataset.StudyDate, dataset.PatientSex) == ("A1", "20240315", "M")
    assert dataset.SeriesInstanceUID not in (exam.uid(2), exam.uid(3))


def test_without_source_the_patient_is_the_subject(tmp_path: Path) -> None:
    path, _ = chi_map(tmp_path)
    dataset = read_series(export_dicom(path, {}, tmp_path / "out"))[0]
    assert (dataset.PatientID, str(dataset.PatientName), dataset.StudyDate) == ("sub-07", "sub-07", "20240315")


@pytest.mark.parametrize("multiframe", [False, True])
def test_exported_maps_are_not_taken_for_magnitude(tmp_path: Path, multiframe: bool) -> None:
    """A dataset that is converted again does not mistake the map for a scan."""
    from qsmxt.convert.classification import classify

    path, _ = chi_map(tmp_path)
    files = export_dicom(path, {"EchoTime": 0.02}, tmp_path / "out", multiframe=multiframe)
    frames = [frame for file in files for frame in read_frames(file)]
    assert [row.type for row in classify(frames)] == ["extra"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sub-1_Chimap.nii", "chi"), ("sub-1_desc-paramagnetic_Chimap.nii", "paramagnetic"),
        ("sub-1_desc-swi_T2starw.nii", "swi"), ("sub-1_desc-minIP_T2starw.nii", "minIP"),
        ("sub-1_R2starmap.nii", "r2star"), ("anything.nii", "map"),
    ],
)  # fmt: skip
def test_kind_follows_from_the_name(name: str, kind: str) -> None:
    from qsmxt.convert.export import find_kind

    assert find_kind(Path(name)) == KINDS[kind]


def test_refusals(tmp_path: Path) -> None:
    path, values = chi_map(tmp_path)
    export_dicom(path, {}, tmp_path / "out")
    before = sorted((p, p.read_bytes()) for p in (tmp_path / "out").iterdir())
    with pytest.raises(OutputError, match="already"):
        export_dicom(path, {}, tmp_path / "out")
    assert sorted((p, p.read_bytes()) for p in (tmp_path / "out").iterdir()) == before
    assert len(export_dicom(path, {}, tmp_path / "out", overwrite=True, description="again")) == 4
    with pytest.raises(MissingInputError):
        export_dicom(path, {}, tmp_path / "x", tmp_path / "nowhere")
    with pytest.raises(InputError, match="source DICOM"):
        export_dicom(path, {}, tmp_path / "x", path)
    with pytest.raises(ParameterError, match="kind"):
        export_dicom(path, {}, tmp_path / "x", kind="qsm")
    nibabel.save(nibabel.Nifti1Image(np.stack([values] * 2, -1), ROTATION), path)
    with pytest.raises(InputError, match="one volume"):
        export_dicom(path, {}, tmp_path / "x")
    nibabel.save(nibabel.Nifti1Image(np.full((3, 3, 3), np.nan, np.float32), ROTATION), path)
    with pytest.raises(InputError, match="finite"):
        export_dicom(path, {}, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_multiframe_holds_the_numbers_of_the_slices(tmp_path: Path) -> None:
    path, _ = chi_map(tmp_path, SAGITTAL)
    slices = read_series(export_dicom(path, {}, tmp_path / "slices"))
    (whole,) = read_series(export_dicom(path, {}, tmp_path / "whole", multiframe=True))
    np.testing.assert_array_equal(whole.pixel_array, np.stack([one.pixel_array for one in slices]))
    shared = whole.SharedFunctionalGroupsSequence[0]
    assert shared.PixelValueTransformationSequence[0].RescaleSlope == slices[0].RescaleSlope
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == slices[0].ImageOrientationPatient
    for frame, one in zip(whole.PerFrameFunctionalGroupsSequence, slices, strict=True):
        assert frame.PlanePositionSequence[0].ImagePositionPatient == one.ImagePositionPatient
    assert whole.SeriesInstanceUID != slices[0].SeriesInstanceUID  # one series is of one class


def two_studies(folder: Path) -> tuple[Exam, Exam]:
    """A folder with the studies of two patients, one slice each."""
    exams = (Exam(ROTATION, "P-007"), Exam(ROTATION, "P-08", study=2, study_date="20240401"))
    for number, exam in enumerate(exams):
        values = np.ones((1, 4, 4, 1))
        write_siemens(folder / str(number), exam, values, values, [0.01])
    return exams


def test_map_never_joins_the_study_of_somebody_else(tmp_path: Path) -> None:
    exams = two_studies(tmp_path / "scan")
    path, values = chi_map(tmp_path)
    with pytest.raises(InputError, match="expected one study of sub-07"):
        export_dicom(path, {}, tmp_path / "out", tmp_path / "scan")
    assert not (tmp_path / "out").exists()
    facts = {"SeriesInstanceUID": exams[1].uid(2)}
    assert read_series(export_dicom(path, facts, tmp_path / "by-uid", tmp_path / "scan"))[0].PatientID == "P-08"
    with pytest.raises(InputError, match="its sidecar names"):
        export_dicom(path, {"StudyInstanceUID": "1.2.3"}, tmp_path / "out", tmp_path / "scan" / "0")
    named = tmp_path / "sub-P007_Chimap.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, ROTATION), named)
    assert read_series(export_dicom(named, {}, tmp_path / "by-label", tmp_path / "scan"))[0].PatientID == "P-007"


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
@pytest.mark.parametrize("source", [False, True], ids=["alone", "in a study"])
@pytest.mark.parametrize("multiframe", [False, True], ids=["classic", "multi-frame"])
def test_validator_finds_no_errors(tmp_path: Path, multiframe: bool, source: bool) -> None:
    path, values = chi_map(tmp_path)
    if source:
        write_siemens(tmp_path / "scan", Exam(ROTATION), np.abs(values)[None], values[None], [0.01])
    facts = {"EchoTime": 0.01, "RepetitionTime": 0.04}
    study = tmp_path / "scan" if source else None
    for file in export_dicom(path, facts, tmp_path / "out", study, multiframe=multiframe):
        done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
        lines = f"{done.stdout}\n{done.stderr}".splitlines()
        assert ("EnhancedMRImage" if multiframe else "MRImage") in lines  # it knows what it looked at
        assert [line for line in lines if line.startswith("Error")] == []
