"""From the scanner to susceptibility and back to the scanner's archive, on a simulated head written as DICOM."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from scipy import ndimage

from qsmxt.cli.convert import main as convert
from qsmxt.cli.run import main as reconstruct
from qsmxt.convert.export import find_kind
from qsmxt.phantom.head import Head
from tests.convert.scanner import Exam, scaled_magnitude, siemens_phase, write_siemens
from tests.heads import head, write_description, write_subject

#: Edge of the voxels, mm: with larger ones the default mask keeps air, and the map is no map of a brain.
VOXEL = 3.0
NAME = "sub-p1/anat/sub-p1_acq-GREQSM_Chimap.nii.gz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One head by two ways: ``dicom`` through a scanner of two patients, ``direct`` as NIfTI without one."""
    root, truth = tmp_path_factory.mktemp("way"), head(voxel=VOXEL)
    write_siemens(root / "scan/b", Exam(truth.affine, "p1"), truth.magnitude, truth.wrapped_phase, truth.echo_times)
    other = Exam(truth.affine, "p0", study=2)
    write_siemens(root / "scan/a", other, truth.magnitude[:1, ..., :2], truth.wrapped_phase[:1, ..., :2], [0.02])
    assert convert(["dicom", str(root / "scan"), str(root / "dicom"), "--yes", "--session-pattern", "none"]) == 0
    write_description(root / "direct")
    write_subject(root / "direct", "p1", as_stored(truth, root / "dicom"))
    export = ["--swi", "--export-dicom", "--source-dicom", str(root / "scan")]
    for way, more in (("dicom", ["--participant-label", "p1", *export]), ("direct", ["--skip-bids-validation"])):
        out = root / f"{way}-out"
        where = [str(root / way), str(out), "participant", "-w", str(root / f"{way}-work"), "--nprocs", "1"]
        assert reconstruct([*where, *more]) == 0
    return root


def as_stored(truth: Head, converted: Path) -> Head:
    """The head in the 12 bits of the scanner, with its axes in the order of the converted images."""
    image = nibabel.load(next(converted.rglob("sub-p1*echo-01_part-mag*.nii.gz")))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(truth.affine), nibabel.io_orientation(image.affine)
    )
    phase = siemens_phase(truth.wrapped_phase) * (np.pi / 2048) - np.pi
    parts = {
        name: np.stack([nibabel.apply_orientation(echo, turn) for echo in echoes]).astype(np.float32)
        for name, echoes in (("magnitude", scaled_magnitude(truth.magnitude)[0]), ("wrapped_phase", phase))
    }
    return replace(truth, affine=image.affine, **parts)


def canonical(path: Path) -> np.ndarray:
    return nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()


def test_map_by_way_of_the_scanner_is_that_of_the_simulation(folder: Path) -> None:
    """Conversion adds nothing to what the scanner's 12 bits have done: the maps are the same up to rounding."""
    found = canonical(folder / "dicom-out" / NAME)
    direct = canonical(folder / "direct-out/sub-p1/anat/sub-p1_Chimap.nii.gz")
    np.testing.assert_array_equal(found != 0, direct != 0)
    assert np.linalg.norm(found - direct) < 1e-4 * np.linalg.norm(direct)
    inside = ndimage.binary_erosion(head(voxel=VOXEL).brain, iterations=2) & (found != 0)
    assert np.corrcoef(found[inside], head(voxel=VOXEL).chi[inside])[0, 1] > 0.7
    image = nibabel.as_closest_canonical(nibabel.load(folder / "dicom-out" / NAME))
    np.testing.assert_allclose(image.affine, head(voxel=VOXEL).affine, atol=1e-4)


def test_series_of_the_maps_join_the_study_of_the_patient(folder: Path) -> None:
    series = {path.name: path for path in (folder / "dicom-out/sub-p1/dicom").iterdir()}
    maps = {p.name.partition(".")[0]: p for p in (folder / "dicom-out/sub-p1/anat").glob("*.nii.gz")}
    assert set(series) == {name for name in maps if not name.endswith("_mask")}
    assert {name.rpartition("_")[2] for name in series} >= {"Chimap", "T2starw"}
    exam = Exam(head(voxel=VOXEL).affine, "p1")
    uids = set()
    for name, path in series.items():
        slices = sorted(map(pydicom.dcmread, path.iterdir()), key=lambda s: float(s.ImagePositionPatient[2]))
        first = slices[0]
        assert {(s.PatientID, s.StudyInstanceUID, s.FrameOfReferenceUID) for s in slices} == {
            ("p1", exam.uid(), exam.uid(9999))
        }
        uids.add(first.SeriesInstanceUID)
        decoded = np.stack([s.pixel_array.T * float(s.RescaleSlope) for s in slices], axis=-1)
        expected = (
            nibabel.as_closest_canonical(nibabel.load(maps[name])).get_fdata()[::-1, ::-1]
            * find_kind(maps[name]).factor
        )
        assert np.abs(decoded - expected).max() <= float(first.RescaleSlope) / 2 * 1.001
    assert len(uids) == len(series)


def test_exporting_again_changes_no_file(folder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (folder / "dicom-out/sub-p1/dicom").rglob("*")}
    where = [str(folder / "dicom"), str(folder / "dicom-out"), "participant", "-w", str(folder / "dicom-work")]
    export = ["--swi", "--export-dicom", "--source-dicom", str(folder / "scan")]
    assert reconstruct([*where, "--nprocs", "1", "--participant-label", "p1", *export]) == 0
    assert {p: p.stat().st_mtime_ns for p in (folder / "dicom-out/sub-p1/dicom").rglob("*")} == before


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
def test_validator_finds_no_errors(folder: Path) -> None:
    """Every series alone, and all of them together with the images of the scanner."""
    series = sorted((folder / "dicom-out/sub-p1/dicom").iterdir())
    for path in series:
        done = subprocess.run(["dciodvfy", str(min(path.iterdir()))], capture_output=True, text=True, check=False)
        assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []
    together = [str(min(path.iterdir())) for path in (*series, folder / "scan/b/mag")]
    done = subprocess.run(["dcentvfy", *together], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []
