"""Workflows that are added while others run: all are done, few at a time, and one that fails stops no other."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

from qsmxt.bids.units import ProcessingUnit
from qsmxt.config import Settings
from qsmxt.workflows.flow import LEAST_OPEN, Flow
from qsmxt.workflows.resources import Resources
from qsmxt.workflows.unit import Context

UNITS = [ProcessingUnit({"subject": f"{number:02}"}) for number in range(LEAST_OPEN + 4)]
FAULTY = UNITS[1]


def _step(before: str, label: str, faulty: bool) -> str:
    if faulty:
        raise ValueError(f"{label} is faulty")
    return before + label


def _workflow(unit):
    workflow = pe.Workflow(name=unit.name)
    first, last = (
        pe.Node(Function(function=_step, output_names=["out"]), name=name) for name in ("load", "publish_qsm")
    )
    first.inputs.before, first.inputs.label, first.inputs.faulty = "", unit.subject, unit is FAULTY
    last.inputs.label, last.inputs.faulty = unit.subject, False
    workflow.connect(first, "out", last, "before")
    return workflow


def _run(folder: Path, resources: Resources, settings: Settings):
    """Outcomes, units that were told of, their rows, most units that were held at a time, and those held at the end."""
    context = Context(folder / "bids", folder / "out", "1", "code", 1, folder / "work")
    held, most, told, rows = set(), [], [], []
    with Flow(
        settings, context, folder / "work", resources, None, lambda u, taken: (told.append(u), rows.append(taken))
    ) as flow:
        for unit in UNITS:
            if flow.stopped:
                break
            lock = ExitStack()
            held.add(unit.name)
            lock.callback(held.discard, unit.name)
            most.append(len(held))
            flow.add(unit, _workflow(unit), lock)
        outcomes = flow.finish()
    return outcomes, told, rows, max(most), held


@pytest.mark.parametrize(
    "resources",
    [Resources(2, 4.0), Resources(1, 4.0), Resources(2, 4.0, plugin="MultiProc"), Resources(2, 4.0, plugin="Linear")],
    ids=["workers", "serial", "asked", "linear"],
)
def test_everything_else_is_done_and_locks_are_released_on_the_way(tmp_path, resources):
    outcomes, told, rows, most, held = _run(tmp_path, resources, Settings())
    assert {name for name, outcome in outcomes.items() if outcome.status == "done"} == {
        unit.name for unit in UNITS if unit is not FAULTY
    }
    assert outcomes[FAULTY.name].status == "failed"
    assert outcomes[FAULTY.name].crash_files and f"{FAULTY.subject} is faulty" in outcomes[FAULTY.name].reason
    assert sorted(unit.name for unit in told) == sorted(unit.name for unit in UNITS if unit is not FAULTY)
    assert all(
        [row["node"] for row in own] == [f"{unit.name}.load", f"{unit.name}.publish_qsm"]
        for unit, own in zip(told, rows, strict=True)
    )
    assert most <= LEAST_OPEN and not held


def test_a_failure_stops_all_where_that_was_asked_for(tmp_path):
    settings = Settings()
    settings = replace(settings, execution=replace(settings.execution, stop_on_first_crash=True))
    outcomes, _, _, _, held = _run(tmp_path, Resources(1, 4.0), settings)
    assert {name for name, outcome in outcomes.items() if outcome.status == "done"} == {UNITS[0].name}
    assert set(outcomes) == {UNITS[0].name, FAULTY.name} and not held
