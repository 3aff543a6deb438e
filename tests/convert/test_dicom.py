"""From the scanner to BIDS: simulated heads of three makers, real files of three makers, and everything that fails."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from qsmxt.bids.acquisition import load_acquisition
from qsmxt.bids.queries import find_units
from qsmxt.bids.validation import find_validator, validate
from qsmxt.convert.dataset import read_tsv
from qsmxt.convert.dcm2niix import Converter
from qsmxt.convert.dicom import Report, Settings, convert_table, default_key, read_table
from qsmxt.convert.naming import Labelling
from qsmxt.errors import InputError, OutputError, SelectionError
from qsmxt.phantom.head import Head
from tests.convert.scanner import (
    Exam,
    scaled_magnitude,
    siemens_phase,
    write_classic,
    write_ge,
    write_philips_enhanced,
    write_plain,
    write_siemens,
    write_siemens_xa,
)

ONE = Settings(workers=1)

#: Makers that use public tags alone: subject, Manufacturer, values of Image Type of magnitude and phase.
PLAIN = (("uih", "UIH", ("M", "P")), ("canon", "CANON_MEC", ("MAGNITUDE", "PHASE")))
SUBJECTS = ("sie", "phi", "ge", "xa", "uih", "canon")


def convert(source: Path, dataset: Path, settings: Settings = ONE) -> Report:
    with read_table(source, settings, dataset=dataset) as table:
        return convert_table(table, dataset, settings)


def assert_valid(dataset: Path) -> None:
    if find_validator() is None:
        pytest.skip("the BIDS validator (pip install bids-validator-deno) is not installed")
    assert validate(dataset) == []


def files_of(dataset: Path) -> dict[str, bytes]:
    return {p.relative_to(dataset).as_posix(): p.read_bytes() for p in sorted(dataset.rglob("*")) if p.is_file()}


def wrapped(difference: np.ndarray) -> np.ndarray:
    return np.abs(np.angle(np.exp(1j * difference)))


@pytest.fixture(scope="module")
def scanned(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One head, six scanners; magnitude in steps of the scanner."""
    source = tmp_path_factory.mktemp("scanned")
    times = head.echo_times
    write_siemens(source / "a", Exam(head.affine, "sie"), head.magnitude, head.wrapped_phase, times)
    enhanced = Exam(head.affine, "phi", study=2)
    write_philips_enhanced(source / "b.dcm", enhanced, head.magnitude, head.wrapped_phase, times, seed=3)
    alternating = head.magnitude * np.exp(-1j * head.wrapped_phase) * (-1.0) ** np.arange(head.magnitude.shape[3])
    write_ge(source / "c", Exam(head.affine, "ge", study=3), alternating, times)
    both = (head.magnitude, head.wrapped_phase, times)
    write_siemens_xa(source / "d", Exam(head.affine, "xa", study=4), *both)
    for number, (patient, manufacturer, types) in enumerate(PLAIN, start=5):
        exam = Exam(head.affine, patient, study=number)
        write_plain(source / patient, exam, *both, manufacturer=manufacturer, types=types)
    return source


@pytest.fixture(scope="module")
def dataset(scanned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bids")
    report = convert(scanned, folder)
    assert (report.problems, report.warnings, len(report.written)) == ([], [], 36)
    return folder


def test_dataset_is_valid_bids(dataset: Path) -> None:
    assert_valid(dataset)
    assert not list(dataset.glob(".qsmxt-convert*"))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_head_comes_back(dataset: Path, head: Head, subject: str) -> None:
    """Every maker, every echo: half a step of the scanner is all that is lost, and the grid is the same."""
    for echo in range(3):
        stem = f"sub-{subject}/ses-20240315/anat/sub-{subject}_ses-20240315_acq-GREQSM_echo-0{echo + 1}_part"
        magnitude, phase = (
            nibabel.as_closest_canonical(nibabel.load(dataset / f"{stem}-{part}_MEGRE.nii.gz"))
            for part in ("mag", "phase")
        )
        np.testing.assert_allclose(phase.affine, head.affine, atol=1e-4)
        expected = head.magnitude[echo]
        measured = magnitude.get_fdata()
        scale = (measured * expected).sum() / (expected**2).sum()
        assert np.abs(measured / scale - expected).max() < 2e-4 * head.magnitude.max()
        # a step of 16 bits in real and imaginary part is an angle of its own in every voxel
        step = head.magnitude.max() / 16000 / np.maximum(expected, 1e-9)
        limit = np.pi / 4096 * 1.001 if subject != "ge" else np.minimum(np.pi, 1.5 * step + 1e-5)
        assert (wrapped(phase.get_fdata() - head.wrapped_phase[echo]) <= limit).all()
        sidecar = json.loads((dataset / f"{stem}-phase_MEGRE.json").read_text())
        assert sidecar["Units"] == "rad"
        assert sidecar["EchoTime"] == pytest.approx(head.echo_times[echo])
        assert (sidecar["MagneticFieldStrength"], sidecar["RepetitionTime"]) == (3.0, 0.04)


def test_corrections_are_recorded_and_not_done_twice(dataset: Path, head: Head) -> None:
    """What the reconstruction loads has the right sign and no alternation, for every maker."""
    units = {unit.subject: unit for unit in find_units(dataset).units}
    signs = {}
    for subject in SUBJECTS:
        acquisition = load_acquisition(units[subject])
        np.testing.assert_allclose(acquisition.echo_times, head.echo_times)
        assert acquisition.field_strength == 3.0
        image = nibabel.Nifti1Image(np.moveaxis(acquisition.wrapped_phase, 0, -1), acquisition.affine)
        phase = np.moveaxis(nibabel.as_closest_canonical(image).get_fdata(), -1, 0)
        inside = head.magnitude > 0.2 * head.magnitude.max()
        assert wrapped(phase - head.wrapped_phase)[inside].max() < 2e-3
        signs[subject] = units[subject].echoes[0].metadata["PhaseCorrections"]
    assert (signs["ge"]["PhaseSign"], signs["ge"]["SliceAlternation"]) == ("inverted", "z")
    assert (signs["sie"]["PhaseSign"], signs["phi"]["SliceAlternation"]) == ("as stored", "none")


def test_tables_of_the_dataset(dataset: Path) -> None:
    columns, rows = read_tsv(dataset / "participants.tsv")
    assert columns == ["participant_id", "age", "sex"]
    assert {"participant_id": "sub-ge", "age": "54", "sex": "M"} in rows
    assert [row["participant_id"] for row in rows] == sorted(f"sub-{subject}" for subject in SUBJECTS)
    scans = read_tsv(dataset / "sub-sie" / "ses-20240315" / "sub-sie_ses-20240315_scans.tsv")[1]
    assert len(scans) == 6
    assert {row["acq_time"] for row in scans} == {"2024-03-15T10:16:00"}
    text = "".join(p.read_text() for p in dataset.rglob("*.json"))
    assert "Bond" not in text and "19700101" not in text  # the person is never in a sidecar


def test_same_bytes_for_any_number_of_workers_and_from_an_archive(scanned: Path, dataset: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "scan"), "zip", scanned))
    convert(archive, tmp_path / dataset.name, Settings(workers=3))
    assert files_of(tmp_path / dataset.name) == files_of(dataset)


def test_nothing_is_overwritten_unless_told(head: Head, tmp_path: Path) -> None:
    first = Exam(head.affine, "p")
    write_siemens(tmp_path / "a", first, head.magnitude, head.wrapped_phase, head.echo_times)
    convert(tmp_path / "a", tmp_path / "bids")
    before = files_of(tmp_path / "bids")
    shutil.rmtree(tmp_path / "a")
    write_siemens(tmp_path / "a", first, head.magnitude[:, ::-1], head.wrapped_phase, head.echo_times)
    report = convert(tmp_path / "a", tmp_path / "bids")
    assert (len(report.kept), report.written) == (1, [])
    assert files_of(tmp_path / "bids") == before
    report = convert(tmp_path / "a", tmp_path / "bids", Settings(workers=1, overwrite=True))
    assert len(report.written) == 6
    after = files_of(tmp_path / "bids")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.endswith("part-mag_MEGRE.nii.gz")}


def test_another_series_of_the_same_name_is_a_problem_not_a_repetition(head: Head, tmp_path: Path) -> None:
    """A second batch of the same day must not be taken for what is there already, and so be lost."""
    for number, name in ((2, "first"), (12, "second")):
        exam = Exam(head.affine, "p")
        write_siemens(tmp_path / name, exam, head.magnitude, head.wrapped_phase, head.echo_times, series=number)
        report = convert(tmp_path / name, tmp_path / "bids")
    assert report.kept == [] and report.written == []
    assert "another series already has the name" in report.problems[0].reason
    next((tmp_path / "bids").rglob("*echo-02_part-phase*.nii.gz")).unlink()
    assert "in part only" in convert(tmp_path / "first", tmp_path / "bids").problems[0].reason


def test_other_contrasts_are_valid_bids(head: Head, tmp_path: Path) -> None:
    """MP2RAGE, T1w, several spin echoes and a time series of gradient echoes."""
    volume, _ = scaled_magnitude(head.magnitude)
    phase = siemens_phase(head.wrapped_phase)

    def scan(series: int, images: np.ndarray, times: list[float], kind: str, protocol: str, **extra: Any) -> None:
        exam = Exam(head.affine, "p", protocol=protocol, extra=extra)
        scaling = {"slope": 2, "intercept": -4096} if kind == "P" else {}
        write_classic(tmp_path / "src" / f"{series}", exam, images, times, series=series, manufacturer="SIEMENS",
                      image_type=["ORIGINAL", "PRIMARY", kind, "ND"], **scaling)  # fmt: skip

    inversion = {"ScanningSequence": ["GR", "IR"], "SequenceName": "*tfl3d1_16ns"}
    for series, time in ((2, 700), (4, 2500)):
        scan(series, volume[:1], [0.003], "M", "mp2rage", InversionTime=time, **inversion)
        scan(series + 1, phase[:1], [0.003], "P", "mp2rage", InversionTime=time, **inversion)
    scan(6, volume[:1], [0.003], "UNI", "mp2rage", **inversion)
    scan(7, volume[:1], [0.003], "M", "mprage", InversionTime=900, **inversion)
    scan(8, volume, [0.02, 0.04, 0.06], "M", "multi_se", ScanningSequence="SE", SequenceName="se2d")
    for repetition in (1, 2):
        scan(8 + repetition, volume, [0.004, 0.01, 0.016], "M", "gre", AcquisitionTime=f"10{repetition}000")
    report = convert(tmp_path / "src", tmp_path / "bids")
    names = [path.name.removeprefix("sub-p_ses-20240315_").removesuffix(".nii.gz") for path in report.written]
    assert report.problems == []
    assert set(names) == {
        *(f"acq-mp2rage_inv-0{i}_part-{part}_MP2RAGE" for i in (1, 2) for part in ("mag", "phase")),
        "acq-mp2rage_UNIT1", "acq-mprage_T1w", *(f"acq-multise_echo-0{e}_MESE" for e in (1, 2, 3)),
        *(f"acq-gre_run-0{r}_echo-0{e}_MEGRE" for r in (1, 2) for e in (1, 2, 3)),
    }  # fmt: skip
    sidecar = json.loads(next((tmp_path / "bids").rglob("*inv-02_part-mag_MP2RAGE.json")).read_text())
    assert sidecar["InversionTime"] == 2.5
    assert_valid(tmp_path / "bids")


def test_a_series_that_fails_leaves_nothing_and_the_others_are_converted(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, study in (("good", 1), ("bad", 2)):
        exam = Exam(head.affine, name, study=study)
        write_siemens(tmp_path / "src" / name, exam, head.magnitude, head.wrapped_phase, head.echo_times)
    original = Converter.convert

    def fail_late(self: Converter, volume: Any) -> Any:
        if volume.source.patient_id == "bad" and volume.first.component == "phase" and volume.echo_time == 0.016:
            raise InputError("dcm2niix: failed")
        return original(self, volume)

    monkeypatch.setattr(Converter, "convert", fail_late)
    report = convert(tmp_path / "src", tmp_path / "bids")
    assert len(report.written) == 6
    assert [("sub-bad" in problem.name, problem.reason) for problem in report.problems] == [(True, "dcm2niix: failed")]
    assert not [p for p in (tmp_path / "bids").rglob("*") if "bad" in p.name or p.name.startswith(".qsmxt")]
    assert "sub-bad" not in (tmp_path / "bids" / "participants.tsv").read_text()


def test_truncated_pixels_fail_by_name(head: Head, tmp_path: Path) -> None:
    write_siemens(tmp_path / "src", Exam(head.affine), head.magnitude, head.wrapped_phase, head.echo_times)
    file = sorted((tmp_path / "src" / "phase").iterdir())[5]
    file.write_bytes(file.read_bytes()[:-300])
    report = convert(tmp_path / "src", tmp_path / "bids")
    assert report.written == []
    assert "GRE_QSM" in report.problems[0].name
    assert not list((tmp_path / "bids").rglob("*.nii.gz"))


def test_lost_slice_is_reported_and_the_rest_converted(head: Head, tmp_path: Path) -> None:
    write_siemens(tmp_path / "src", Exam(head.affine), head.magnitude, head.wrapped_phase, head.echo_times)
    slices = head.magnitude.shape[3]
    sorted((tmp_path / "src" / "phase").iterdir())[slices + 7].unlink()  # echo 2
    report = convert(tmp_path / "src", tmp_path / "bids")
    names = [path.name for path in report.written]
    assert len(names) == 4 and not any("echo-02" in name for name in names)
    assert [p.reason for p in report.problems] == ["the echo at 10 ms is left out: 1 slices of its phase missing"]
    assert any("1 slices missing in the volume of echo time 10 ms" in str(w) for w in report.warnings)


def test_malformed_and_hostile_files_are_named_and_the_rest_converted(head: Head, tmp_path: Path) -> None:
    source = tmp_path / "src"
    write_siemens(source / "good", Exam(head.affine), head.magnitude, head.wrapped_phase, head.echo_times)
    hostile = Exam(head.affine, "../../escape", study=2)
    write_siemens(source / "hostile", hostile, head.magnitude[:1], head.wrapped_phase[:1], [0.02])
    damaged = sorted((source / "good" / "mag").iterdir())[0].read_bytes()[:500]
    (source / "damaged").write_bytes(damaged)
    with zipfile.ZipFile(source / "evil.zip", "w") as archive:
        archive.writestr("../evil", b"x")
    report = convert(source, tmp_path / "a" / "bids")
    assert len(report.written) == 6
    text = "\n".join(map(str, report.problems))
    assert "damaged" in text and "evil.zip" in text and "'../../escape'" in text
    assert not [p for p in tmp_path.rglob("*escape*") if "src" not in p.parts]
    assert not (tmp_path / "evil").exists()


def test_link_out_of_the_dataset_is_not_followed(head: Head, tmp_path: Path) -> None:
    write_siemens(tmp_path / "src", Exam(head.affine, "p"), head.magnitude[:1], head.wrapped_phase[:1], [0.02])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids" / "sub-p").symlink_to(tmp_path / "elsewhere")
    report = convert(tmp_path / "src", tmp_path / "bids")
    assert "outside" in str(report.problems[0])
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_anonymised_dataset_holds_nobody(head: Head, tmp_path: Path) -> None:
    exam = Exam(head.affine, protocol="QSM_Bond")
    write_siemens(tmp_path / "src", exam, head.magnitude, head.wrapped_phase, head.echo_times)
    settings = Settings(workers=1, anonymise=True)
    report = convert(tmp_path / "src", tmp_path / "bids", settings)
    assert len(report.written) == 6 and report.written[0].name.startswith("sub-001_ses-19")
    for name, content in files_of(tmp_path / "bids").items():
        plain = gzip.decompress(content) if name.endswith(".gz") else content
        header = plain[:352] if name.endswith(".gz") else plain
        for word in (
            b"Bond",
            b"P-007",
            b"P007",
            b"20240315",
            b"2024-03-15",
            b"Universal",
            b"19700101",
            exam.uid().encode(),
        ):
            assert word not in header and word.decode() not in name, (name, word)
    key = default_key(tmp_path / "bids")
    assert key.parent == tmp_path and "P-007" in key.read_text()
    # the second batch of the same person keeps label and shift
    later = Exam(head.affine, study_date="20240415", study=5, protocol="QSM_Bond")
    write_siemens(tmp_path / "src2", later, head.magnitude, head.wrapped_phase, head.echo_times)
    second = convert(tmp_path / "src2", tmp_path / "bids", settings)
    assert second.written[0].name.startswith("sub-001_ses-19")
    assert len(list((tmp_path / "bids" / "sub-001").iterdir())) == 2
    with pytest.raises(OutputError, match="outside the dataset"):
        convert(tmp_path / "src", tmp_path / "bids", Settings(anonymise=True, key=tmp_path / "bids" / "key.tsv"))


def test_receive_elements_are_kept_or_combined(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = {"H1": 0.4, "H2": -1.1}
    for series, (coil, offset) in enumerate(offsets.items(), start=2):
        private = {(0x0051, 0x0F): ("SIEMENS MR HEADER", "LO", coil)}
        stored, _ = scaled_magnitude(head.magnitude)
        phase = siemens_phase(np.angle(np.exp(1j * (head.wrapped_phase + offset))))
        exam = Exam(head.affine, "p")
        given = {"manufacturer": "SIEMENS", "private": private}
        write_classic(tmp_path / "src" / coil / "m", exam, stored, head.echo_times, series=series * 10,
                      image_type=["ORIGINAL", "PRIMARY", "M"], **given)  # fmt: skip
        write_classic(tmp_path / "src" / coil / "p", exam, phase, head.echo_times, series=series * 10 + 1, slope=2,
                      intercept=-4096, image_type=["ORIGINAL", "PRIMARY", "P"], **given)  # fmt: skip
    report = convert(tmp_path / "src", tmp_path / "kept")
    assert len(report.written) == 2 * 2 * 3
    assert all("_rec-uncombined_" in path.name and "_coil-0" in path.name for path in report.written)
    assert_valid(tmp_path / "kept")

    class Sum:
        """Conjugate sum after the known offsets are removed."""

        key = "known"

        @staticmethod
        def run(arrays: dict[str, Any], grid: Any) -> dict[str, Any]:
            turned = np.exp(-1j * np.array(list(offsets.values())).reshape(-1, 1, 1, 1, 1))
            total = (arrays["coil_magnitude"] * np.exp(1j * arrays["coil_phase"]) * turned).sum(0)
            assert arrays["coil_phase"].shape == (2, 3, *grid.shape)
            np.testing.assert_allclose(arrays["echo_times"], head.echo_times)
            return {"wrapped_phase": np.angle(total), "magnitude": np.abs(total)}

    monkeypatch.setattr("qsmxt.convert.job.find_method", lambda key: Sum)
    monkeypatch.setattr("qsmxt.convert.coils.find_method", lambda key: Sum)
    report = convert(tmp_path / "src", tmp_path / "bids", Settings(workers=1, combine="default"))
    assert report.problems == []
    assert report.written[0].name == "sub-p_ses-20240315_acq-GREQSM_rec-known_echo-01_part-mag_MEGRE.nii.gz"
    assert len(report.written) == 6
    image = nibabel.as_closest_canonical(nibabel.load(report.written[1]))
    inside = head.magnitude[0] > 0.1 * head.magnitude.max()
    assert wrapped(image.get_fdata() - head.wrapped_phase[0])[inside].max() < 2e-3
    assert_valid(tmp_path / "bids")
    assert len(convert(tmp_path / "src", tmp_path / "bids", Settings(workers=1, combine="default")).kept) == 1

    monkeypatch.undo()
    report = convert(tmp_path / "src", tmp_path / "default", Settings(workers=1, combine="default"))
    assert report.problems == []
    found = [nibabel.as_closest_canonical(nibabel.load(path)).get_fdata() for path in report.written]
    steps = wrapped(np.diff(found[1::2], axis=0) - np.diff(head.wrapped_phase, axis=0))
    assert np.percentile(steps[:, inside], 99) < 4e-3, "elements that differ by a constant evolve alike"
    ratio = found[0][inside] / head.magnitude[0][inside]
    assert np.std(ratio) < 0.02 * np.mean(ratio)


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    with pytest.raises(SelectionError, match="found none in 1 files"), read_table(tmp_path, ONE):
        pass


def real(real_data: Path, name: str, tmp_path: Path) -> Report:
    settings = Settings(workers=1, labelling=Labelling.parse(None, "none"))
    report = convert(real_data / name, tmp_path / "bids", settings)
    assert report.problems == []
    return report


def stored(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj.get_unscaled())


def test_real_siemens_field_map(real_data: Path, tmp_path: Path) -> None:
    """Two echoes that share their instance numbers, and a phase difference."""
    report = real(real_data, "phantom-siemens-fieldmap-dicom/In", tmp_path)
    assert [p.name.split("_")[-1] for p in report.written] == [
        f"{s}.nii.gz" for s in ("magnitude1", "magnitude2", "phasediff")
    ]
    reference = real_data / "phantom-siemens-fieldmap-dicom" / "Ref"
    for path, name in zip(
        report.written,
        ("Si_2_gre_field_magph_e1", "Si_2_gre_field_magph_e2", "Si_3_gre_field_magph_e2_ph"),
        strict=True,
    ):
        np.testing.assert_array_equal(stored(path), stored(reference / f"{name}.nii"))
    sidecar = json.loads(report.written[2].with_suffix("").with_suffix(".json").read_text())
    assert (sidecar["EchoTime1"], sidecar["EchoTime2"]) == (0.00519, 0.00765)
    assert_valid(tmp_path / "bids")


def test_real_siemens_multi_echo(real_data: Path, tmp_path: Path) -> None:
    report = real(real_data, "phantom-siemens-megre-dicom/MEGRE", tmp_path)
    assert len(report.written) == 6
    phase = nibabel.load(report.written[1])
    assert phase.shape == (54, 64, 1)
    np.testing.assert_allclose(phase.get_fdata(), (stored(report.written[1]) * 2 - 4096.0) * np.pi / 4096, atol=1e-6)
    assert_valid(tmp_path / "bids")


def test_real_philips_dual_echo(real_data: Path, tmp_path: Path) -> None:
    """Magnitude and phase of two echoes in one series, in the precise scale of the maker."""
    report = real(real_data, "phantom-philips-dualecho/In", tmp_path)
    reference = real_data / "phantom-philips-dualecho" / "Ref"
    for path in report.written:
        echo = path.name.partition("echo-0")[2][0]
        name = f"Ph_727468159_1301_Dual-echo_iso_e{echo}{'_ph' if 'part-phase' in path.name else ''}.nii.gz"
        np.testing.assert_allclose(
            nibabel.load(path).get_fdata(), nibabel.load(reference / name).get_fdata(), rtol=1e-6
        )
    assert len(report.written) == 4
    assert_valid(tmp_path / "bids")


def test_real_ge_field_map(real_data: Path, tmp_path: Path) -> None:
    report = real(real_data, "head-ge-b0map-invivo/In", tmp_path)
    assert [p.name.split("_")[-1] for p in report.written] == ["fieldmap.nii.gz", "magnitude.nii.gz"]
    reference = real_data / "head-ge-b0map-invivo" / "Ref"
    np.testing.assert_array_equal(stored(report.written[0]), stored(reference / "GE_6_CV_Neuro_HH_Adv_fieldmaphz.nii"))
    sidecar = json.loads(report.written[0].with_suffix("").with_suffix(".json").read_text())
    assert sidecar["Units"] == "Hz"
    assert_valid(tmp_path / "bids")


def test_real_philips_enhanced_velocity_map(real_data: Path, tmp_path: Path) -> None:
    """Its tags say phase, and velocity: it must not become the phase of an echo."""
    report = real(real_data, "phantom-philips-parrec/DICOM", tmp_path)
    assert all("sourcedata" in path.parts for path in report.written)
    velocity = next(path for path in report.written if path.name.endswith("_velocity.nii.gz"))
    reference = nibabel.load(real_data / "phantom-philips-parrec" / "PARREC" / "fieldmap.PAR", scaling="dv")
    expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(reference.get_fdata()[..., 1], reference.affine))
    found = nibabel.as_closest_canonical(nibabel.load(velocity))
    np.testing.assert_allclose(found.get_fdata(), expected.get_fdata(), atol=0.02)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-2)
    assert_valid(tmp_path / "bids")
