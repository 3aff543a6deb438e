"""The table under review: commands, warnings, undo."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from qsmxt.convert.classification import classify
from qsmxt.convert.naming import assign_labels
from qsmxt.convert.review import Review, line_numbers, rich_table
from qsmxt.errors import InputError
from tests.convert.frames import series


@pytest.fixture
def session() -> Review:
    rows = classify([*series(2), *series(3, "phase"), *series(4, echo_times=(0.003,), series_description="[bold]x")])
    assign_labels(rows)
    return Review(rows)


def test_change_undo_accept(session: Review) -> None:
    assert session.command("1-2 acq=qsm run=2") == "changed 2 lines"
    assert [(row.acquisition, row.run) for row in session.rows] == [("qsm", 2), ("qsm", 2), ("GRE", 0)]
    assert session.command("3 T1w") == "changed 1 line"
    assert session.rows[2].suffix == "T1w"
    assert session.command("undo") == "undone"
    assert session.rows[2].type == "extra"
    assert session.command("all ses=") == "changed 3 lines"
    assert {row.session for row in session.rows} == {""}
    assert "sub-p1_acq-qsm_run-02_echo-01_part-mag_MEGRE.nii.gz" in session.command("names")
    assert session.finished is None
    session.command("ok")
    assert session.finished is True


def test_wrong_commands_change_nothing(session: Review) -> None:
    before = list(session.rows)
    for text in ("9 skip", "1 type=bold", "1 sub=../x", "1 run=x", "1 colour=red", "bananas", "1", "1 acq='", "0 skip"):
        assert session.command(text).startswith("not changed:"), text
    assert session.rows == before
    assert session.command("undo") == "there is nothing to undo"


def test_clash_of_names_is_not_accepted(session: Review) -> None:
    session.command("2 type=mag suffix=MEGRE")
    assert session.command("ok").startswith("not yet:")
    assert session.finished is None
    assert any("another row already is" in text for text in session.warnings())


def test_phase_that_lost_its_magnitude_is_warned_of(session: Review) -> None:
    assert session.warnings() == []
    session.command("1 acq=other")
    assert session.warnings() == ["2: phase without mag of the same acquisition"]


def test_quit(session: Review) -> None:
    session.command("q")
    assert session.finished is False


@pytest.mark.parametrize(("text", "numbers"), [("3", [3]), ("1-3", [1, 2, 3]), ("1,3", [1, 3]), ("all", [1, 2, 3, 4])])
def test_line_numbers(text: str, numbers: list[int]) -> None:
    assert line_numbers(text, 4) == numbers
    with pytest.raises(InputError):
        line_numbers("2-9", 4)


def test_drawing_shows_descriptions_as_they_are(session: Review) -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(rich_table(session.rows))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[bold]x" in text and "2 (4, 10)" in text
    assert "coils" not in text  # columns that are empty throughout are not drawn
