"""A mapping says again what was said once."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsmxt.convert.classification import classify
from qsmxt.convert.mapping import apply_mapping, load_mapping, save_mapping
from qsmxt.convert.naming import assign_labels
from qsmxt.convert.table import Row
from qsmxt.errors import InputError, MissingInputError
from tests.convert.frames import series


def batch(patient: str) -> list[Row]:
    given = {"patient_id": patient, "study_uid": f"7.{patient}", "protocol": "a*b[1]"}
    rows = classify([*series(2, **given), *series(3, "phase", **given), *series(4, echo_times=(0.003,), **given)])
    assign_labels(rows)
    return rows


@pytest.mark.parametrize("name", ["mapping.tsv", "mapping.toml"])
def test_decisions_are_replayed_on_another_person(tmp_path: Path, name: str) -> None:
    rows = batch("p1")
    rows[0], rows[1] = rows[0].edited(acquisition="qsm"), rows[1].edited(acquisition="qsm")
    rows[2] = rows[2].edited(type="T1w")
    path = save_mapping(tmp_path / name, rows)
    assert "p1" not in path.read_text()
    again = apply_mapping(batch("p2"), load_mapping(path))
    assert [(r.subject, r.type, r.suffix, r.acquisition) for r in again] == [
        ("p2", "mag", "MEGRE", "qsm"), ("p2", "phase", "MEGRE", "qsm"), ("p2", "T1w", "T1w", rows[2].acquisition),
    ]  # fmt: skip
    assert all(row.warnings == [] for row in again)


def test_first_line_decides_and_patterns_match(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text("series_description\techoes\ttype\tsub\tacq\nG*\t1\tskip\tauto\tauto\n*\t*\tauto\tsub-9\tnew\n")
    rows = apply_mapping(batch("p1"), load_mapping(path))
    assert [row.type for row in rows] == ["mag", "phase", "skip"]
    assert (rows[0].subject, rows[0].acquisition) == ("9", "new")


def test_series_without_a_line_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text("component\ttype\nphase\tskip\n")
    rows = apply_mapping(batch("p1"), load_mapping(path))
    assert ["no line of the mapping" in " ".join(row.warnings) for row in rows] == [True, False, True]


def test_a_line_can_name_a_refused_patient(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text("patient_id\ttype\tsub\n../x\tauto\t7\n")
    rows = classify(series(2, patient_id="../x"))
    assign_labels(rows)
    assert rows[0].type == "skip"
    (row,) = apply_mapping(rows, load_mapping(path))
    assert (row.type, row.subject, row.warnings) == ("mag", "7", [])


def test_several_patients_made_one_subject_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text("type\tsub\nauto\t7\n")
    rows = apply_mapping([*batch("p1"), *batch("p2")], load_mapping(path))
    assert all("patients 'p1', 'p2' all become sub-7" in row.warnings for row in rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour\ttype\nred\tmag\n", "colour"),
        ("component\nmag\n", "type"),
        ("component\ttype\nmag\tbold\n", "line 2: type"),
        ("component\ttype\tsub\nmag\tauto\t../x\n", "line 2: subject"),
        ("component\ttype\trun\nmag\tauto\tone\n", "line 2: run"),
        ("component\ttype\nmag\n", "expected 2 cells"),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        apply_mapping(batch("p1"), load_mapping(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type = [", "expected TOML"),
        ('type = "mag"', "tables"),
        ('[[series]]\ncolour = "red"\ntype = "mag"', "colour"),
        ('[[series]]\ntype = "auto"\n[[series]]\ntype = 1.5', "expected a text or a number"),
        ('[[series]]\ntype = "bold"', "line 1: type"),
    ],
)
def test_a_wrong_mapping_in_toml_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        apply_mapping(batch("p1"), load_mapping(path))


def test_absent_mapping(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        load_mapping(tmp_path / "m.tsv")
