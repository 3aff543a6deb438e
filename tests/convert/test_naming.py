"""Labels and names, and labels that would do harm."""

from __future__ import annotations

import pytest

from qsmxt.convert.classification import classify
from qsmxt.convert.naming import Labelling, assign_labels, padded, raw_name
from qsmxt.convert.table import Row
from qsmxt.errors import InputError, ParameterError
from tests.convert.frames import series


def labelled(*frames: list, subject: str | None = None, session: str | None = None) -> list[Row]:  # type: ignore[type-arg]
    rows = classify([frame for part in frames for frame in part])
    assign_labels(rows, Labelling.parse(subject, session))
    return rows


def test_labels_hold_letters_and_digits() -> None:
    row = labelled(series(2, patient_id="MR-2024_07/x"))[0]
    assert (row.subject, row.session) == ("MR202407x", "20240315")


@pytest.mark.parametrize("hostile", ["../../etc/passwd", "/etc/passwd", "..\\x", "a/../b"])
def test_identifier_that_is_a_path_is_refused_by_name(hostile: str) -> None:
    row = labelled(series(2, patient_id=hostile))[0]
    assert row.type == "skip"
    assert row.subject == ""
    assert repr(hostile) in row.warnings[-1] and row.warnings[-1].startswith("refused:")


def test_name_stands_in_for_a_missing_identifier() -> None:
    assert labelled(series(2, patient_id="", patient_name="Bond^James"))[0].subject == "BondJames"
    assert "neither" in labelled(series(2, patient_id="", patient_name="-"))[0].warnings[-1]


def test_two_patients_never_share_a_label() -> None:
    rows = labelled(series(2, patient_id="a-b"), series(3, patient_id="AB", study_uid="9"), series(4, patient_id="c"))
    assert [row.type for row in rows] == ["skip", "skip", "mag"] or {r.subject for r in rows} == {"", "c"}
    refused = [row for row in rows if row.type == "skip"]
    assert len(refused) == 2
    assert all("'AB' and 'a-b'" in row.warnings[-1] for row in refused)


def test_patterns() -> None:
    row = labelled(series(2, patient_id="STUDY_017_x"), subject=r"_(\d+)_", session="study_time=^\\d{2}")[0]
    assert (row.subject, row.session) == ("017", "10")
    row = labelled(series(2, study_description="pain^s3"), subject=r"study_description=s(\d)")[0]
    assert row.subject == "3"
    row = labelled(series(2), subject=r"\d{9}")[0]
    assert "does not match 'p1'" in row.warnings[-1]
    with pytest.raises(ParameterError, match="regular expression"):
        Labelling.parse("(", None)


def test_sessions() -> None:
    one, two = series(2), series(2, study_uid="1.3", study_date="20240401")
    assert [row.session for row in labelled(one, two)] == ["20240315", "20240401"]
    assert [row.session for row in labelled(two, one, session="number")] == ["01", "02"]
    assert [row.session for row in labelled(one, session="none")] == [""]


def test_two_studies_of_one_day_do_not_merge() -> None:
    rows = labelled(series(2), series(2, study_uid="1.3", study_time="160000"))
    assert [row.session for row in rows] == ["20240315t1015", "20240315t1600"]
    rows = labelled(series(2), series(2, study_uid="1.3"))
    assert len({row.session for row in rows}) == 2


def test_entities_stand_in_the_order_of_bids() -> None:
    entities = {"part": "phase", "echo": "01", "run": "02", "subject": "1", "inversion": "1", "reconstruction": "norm",
                "acquisition": "x", "session": "a"}  # fmt: skip
    assert raw_name(entities, "MEGRE") == "sub-1_ses-a_acq-x_rec-norm_run-02_echo-01_inv-1_part-phase_MEGRE"
    assert raw_name({**entities, "coil": "03"}, "MEGRE").endswith("_inv-1_coil-03_part-phase_MEGRE")
    with pytest.raises(InputError, match="letters and digits"):
        raw_name({"subject": "../1"}, "T1w")
    assert (padded(3, 9), padded(3, 120)) == ("03", "003")
