"""Who cannot be found any more, and that intervals are kept."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from qsmxt.convert.anonymisation import Key, anonymise, parse_date, private_words, shifted
from qsmxt.convert.classification import classify
from qsmxt.convert.sidecar import without_identity
from qsmxt.errors import InputError
from tests.convert.frames import series


def test_dates_move_together_and_end_before_1925(tmp_path: Path) -> None:
    first = series(2, patient_id="p1", study_date="20240110")
    second = series(2, patient_id="p1", study_uid="9", study_date="20240301", acquisition_date="20240302")
    rows = classify([*first, *second])
    key = Key(tmp_path / "key.tsv")
    key.enrol(row.source for row in rows)
    anonymise(rows, key)
    days = [parse_date(row.source.study_date) for row in rows]
    assert days[0] is not None and days[1] is not None
    assert (days[1] - days[0]).days == (date(2024, 3, 1) - date(2024, 1, 10)).days
    assert max(days) < date(1925, 1, 1)  # type: ignore[type-var]
    assert (parse_date(rows[1].source.acquisition_date) - days[1]).days == 1  # type: ignore[operator]


def test_key_makes_later_batches_consistent(tmp_path: Path) -> None:
    path = tmp_path / "key.tsv"
    key = Key(path)
    key.enrol((f.source for p in ("b", "a") for f in series(2, patient_id=p)), taken=["001"])
    assert key.labels() == {"a": "002", "b": "003"}
    key.save()
    assert path.stat().st_mode & 0o077 == 0
    again = Key.load(path)
    again.enrol(f.source for p in ("a", "c") for f in series(2, patient_id=p))
    assert again.labels() == {"a": "002", "b": "003", "c": "001"}
    assert again.people["a"] == key.people["a"]


def test_key_that_is_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "key.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(InputError, match="columns"):
        Key.load(tmp_path / "key.tsv")
    (tmp_path / "key.tsv").write_text("patient_id\tparticipant_id\tshift_days\np\tsub-../x\t3\n")
    with pytest.raises(InputError, match="label"):
        Key.load(tmp_path / "key.tsv")


def test_shift() -> None:
    assert shifted("20240301", -1) == "20240229"
    assert shifted("", 5) == "" and shifted("unknown", 5) == ""


def test_sidecar_keeps_physics_only() -> None:
    source = series(2, patient_id="P-007", patient_name="Bond^James")[0].source
    sidecar = {
        "EchoTime": 0.004, "Manufacturer": "Siemens", "PatientName": "x", "InstitutionName": "MI6", "StudyID": "1",
        "AcquisitionDateTime": "2024-01-01T10:00", "SeriesInstanceUID": "1.2.20240101", "AnythingNew": 1,
        "ProtocolName": "GRE for James", "ImageType": ["ORIGINAL", "PRIMARY", "P"],
    }  # fmt: skip
    kept = without_identity(sidecar, private_words(source))
    assert kept == {"EchoTime": 0.004, "Manufacturer": "Siemens", "ImageType": ["ORIGINAL", "PRIMARY", "P"]}


def test_label_made_from_a_protocol_that_names_the_person(tmp_path: Path) -> None:
    rows = classify(series(2, patient_name="Bond^James", protocol="QSM_bond", sequence_name="*fl3d6r"))
    key = Key(tmp_path / "key.tsv")
    key.enrol(row.source for row in rows)
    anonymise(rows, key)
    assert rows[0].acquisition == "fl3d6rg1"
