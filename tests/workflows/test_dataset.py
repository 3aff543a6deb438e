"""Subjects are finished as they are done, each once, and the rest at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsmxt.workflows import dataset
from qsmxt.workflows.unit import Context
from qsmxt.workflows.watch import Outcome


def test_a_subject_waits_for_all_its_units_and_is_finished_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(
        dataset,
        "finish_subject",
        lambda context, subject, outcomes, facts: written.append(
            (subject, tuple(f"{outcome.name} {outcome.status}" for outcome in outcomes if outcome.subject == subject))
        ),
    )
    context = Context(tmp_path, tmp_path, "1", "1")
    finisher = dataset.Finisher(context, {"1": ["1a", "1b"], "2": ["2a", "2b"], "3": ["3a"]}, {})
    for name, subject in (("1a", "1"), ("2a", "2"), ("1b", "1"), ("1b", "1"), ("4a", "4")):
        finisher(name, subject)
    finished = finisher.close()
    assert finished == {"1"} and written == [("1", ("1a done", "1b done"))]
    outcomes = [Outcome("2b", "2", "failed"), Outcome("4a", "4", "done")]
    dataset.finish_dataset(context, ["1", "2", "4"], outcomes, {}, finished)
    assert written[1:] == [("2", ("2b failed",)), ("4", ("4a done",))]
