"""Parsers meet arbitrary bytes: they answer, or refuse with an error that names the file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qsmxt.bids.filters import load_filter_file, matches, qsm_filter, t1w_filter
from qsmxt.bids.images import read_header, stored_values
from qsmxt.bids.metadata import echo_time, magnetic_field_strength, read_json
from qsmxt.convert.headers import read_frames
from qsmxt.convert.mapping import load_mapping
from qsmxt.errors import QSMxTError

FUZZ = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["EchoTime", "MagneticFieldStrength", "qsm", "t1w", "subject", "regex_search", "x"])

NIFTI = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1, 2, 3, 1])).to_bytes()


def refuses_or_answers(path: Path, *readers: object) -> None:
    for reader in readers:
        try:
            reader(path)  # type: ignore[operator]
        except QSMxTError as error:
            assert path.name in str(error)


@FUZZ
@given(content=st.binary(max_size=200))
@pytest.mark.parametrize("reader", [read_json, load_filter_file, load_mapping, read_frames])
def test_arbitrary_bytes(tmp_path: Path, reader: object, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    refuses_or_answers(path, reader)


@FUZZ
@given(values=st.dictionaries(KEYS, VALUES, max_size=4))
def test_arbitrary_metadata(tmp_path: Path, values: dict) -> None:
    path = tmp_path / "image.json"
    path.write_text(json.dumps(values))
    found = read_json(path)
    for reader, most in ((echo_time, 1.0), (magnetic_field_strength, 30.0)):
        try:
            assert 0 < reader(path, found) <= most
        except QSMxTError as error:
            assert path.name in str(error)


@FUZZ
@given(values=st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
def test_arbitrary_filters(tmp_path: Path, values: dict) -> None:
    path = tmp_path / "filter.json"
    path.write_text(json.dumps(values))
    try:
        filters = load_filter_file(path)
    except QSMxTError as error:
        assert path.name in str(error)
        return
    for query in (qsm_filter, t1w_filter):
        assert matches({"subject": "1", "suffix": "MEGRE"}, query(filters)) in (True, False)


@FUZZ
@given(changes=st.lists(st.tuples(st.integers(0, len(NIFTI) - 1), st.integers(0, 255)), min_size=1, max_size=12),
       length=st.integers(0, len(NIFTI)), zipped=st.booleans())  # fmt: skip
def test_damaged_nifti_headers(tmp_path: Path, changes: list[tuple[int, int]], length: int, zipped: bool) -> None:
    content = bytearray(NIFTI)
    for position, value in changes:
        content[position] = value
    cut = bytes(content[: length if length % 3 == 0 else len(content)])
    path = tmp_path / ("image.nii.gz" if zipped else "image.nii")
    path.write_bytes(gzip.compress(cut) if zipped else cut)
    refuses_or_answers(path, read_header, stored_values)


@FUZZ
@given(changes=st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=6)), max_size=6))
def test_damaged_dicom_headers(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4"
    dataset = FileDataset("x", {}, file_meta=meta, preamble=bytes(128))
    dataset.Modality, dataset.Rows, dataset.Columns = "MR", 4, 4
    dataset.SeriesInstanceUID, dataset.EchoTime = "1.2.3", "5"
    dataset.PatientName = "../../../<script>"
    path = tmp_path / "file"
    dataset.save_as(path, enforce_file_format=True)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[128 + position : 128 + position + len(value)] = value
    path.write_bytes(bytes(content))
    refuses_or_answers(path, read_frames)


@pytest.mark.parametrize("damage", [{"quatern_b": 1e30}, {"quatern_b": np.nan}, {"qoffset_x": np.inf}])
def test_a_qform_that_is_no_transform_leaves_the_sform(tmp_path: Path, damage: dict) -> None:
    affine = np.array([[2, 0, 0, -5], [0, 0, -3, 7], [0, 2, 0, 1], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    for field, value in damage.items():
        image.header[field] = value
    (tmp_path / "image.nii").write_bytes(image.to_bytes())
    header = read_header(tmp_path / "image.nii")
    np.testing.assert_array_equal(header.affine, affine)
    assert "the qform holds no transform" in header.notes[0]


def test_guided_by_coverage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("atheris", reason="atheris (Linux) is not installed")
    from benchmarks import fuzz

    monkeypatch.setenv("PYTHONPATH", str(Path(fuzz.__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    assert fuzz.table(["zipped", "dicom"], 300) == [("zipped", 0), ("dicom", 0)]
