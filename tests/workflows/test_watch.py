"""What became of a unit follows from its nodes."""

from __future__ import annotations

import time
from types import SimpleNamespace

from qsmxt.bids.units import ProcessingUnit
from qsmxt.workflows.participants import write_taken
from qsmxt.workflows.watch import Watch

UNIT = ProcessingUnit({"subject": "1"})
OTHER = ProcessingUnit({"subject": "2"})


def _node(unit: str, name: str) -> SimpleNamespace:
    return SimpleNamespace(fullname=f"qsmxt.{unit}.{name}", name=name, mem_gb=0.5, n_procs=1)


def _watch(clean=None) -> Watch:
    watch = Watch(clean)
    for unit in (UNIT, OTHER):
        watch.expect(unit.name, unit, {"load": 1.0, "publish_qsm": 0.1})
    return watch


def _crash(folder, unit, text, name="crash-1.txt"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"Node: qsmxt.{unit}.load\nWorking directory: /w\n\nTraceback:\n{text}\n")


def test_done_means_that_every_node_ended(tmp_path):
    watch = _watch()
    for name in ("load", "publish_qsm"):
        watch(_node(UNIT.name, name), "end")
    watch(_node(OTHER.name, "load"), "end")
    outcomes = watch.outcomes(tmp_path, dict.fromkeys((UNIT.name, OTHER.name), "killed"))
    assert (outcomes[UNIT.name].status, outcomes[UNIT.name].made) == ("done", ("qsm",))
    assert (outcomes[OTHER.name].status, outcomes[OTHER.name].reason) == ("failed", "killed")


def test_nodes_left_out_after_a_failure_made_nothing(tmp_path):
    watch = _watch()
    watch.serial = True
    watch(_node(UNIT.name, "load"), "start")
    watch(_node(UNIT.name, "load"), "exception")
    watch(_node(UNIT.name, "publish_qsm"), "end")
    outcome = watch.outcomes(tmp_path, {})[UNIT.name]
    assert (outcome.status, outcome.made) == ("failed", ())


def test_failure_is_told_in_the_words_of_our_own_error(tmp_path):
    watch = _watch()
    watch(_node(UNIT.name, "load"), "exception")
    folder = tmp_path / "logs" / "sub-1"
    _crash(folder, UNIT.name, "\tqsmxt.errors.InputError: mask: expected: one voxel\nRuntimeError: wrapped")
    _crash(folder, "sub-1_acq-x_MEGRE", "\tqsmxt.errors.InputError: another", "crash-2.txt")
    outcome = watch.outcomes(tmp_path, {})[UNIT.name]
    assert outcome.reason == "mask: expected: one voxel"
    assert outcome.crash_files == [str(folder / "crash-1.txt")] and outcome.exit_code == 1


def test_crash_files_of_earlier_runs_do_not_count(tmp_path):
    import os

    folder = tmp_path / "logs" / "sub-1"
    _crash(folder, UNIT.name, "old")
    os.utime(folder / "crash-1.txt", (1, 1))
    watch = _watch()
    watch(_node(UNIT.name, "load"), "exception")
    outcome = watch.outcomes(tmp_path, {})[UNIT.name]
    assert outcome.crash_files == [] and outcome.reason == "load"


def test_intermediate_results_go_when_the_last_node_ended_and_not_before(tmp_path):
    watch = _watch(tmp_path)
    folders = [tmp_path / "qsmxt" / unit.name for unit in (UNIT, OTHER)]
    for folder in folders:
        (folder / "load").mkdir(parents=True)
    watch(_node(UNIT.name, "load"), "end")
    assert folders[0].exists()
    watch(_node(UNIT.name, "publish_qsm"), "end")
    assert not folders[0].exists() and folders[1].exists()


def test_time_of_a_serial_run_is_measured_and_other_units_keep_theirs(tmp_path):
    watch = _watch()
    watch.serial = True
    watch(_node(UNIT.name, "load"), "start")
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    watch(_node(UNIT.name, "load"), "end")
    (row,) = watch.taken
    assert row["node"] == f"{UNIT.name}.load" and row["wall_s"] >= 0.05 and row["peak_gb"] > 0.01
    subjects = dict.fromkeys((UNIT.name, OTHER.name), "1")
    for other in ({}, {"node": f"{OTHER.name}.load"}, {"wall_s": 9.0}, {"node": "sub-3_MEGRE.load"}):
        changed = {**row, **other}
        name = changed["node"].partition(".")[0]
        write_taken(tmp_path, {name: [changed]}, {**subjects, "sub-3_MEGRE": "3"})
    lines = (tmp_path / "logs/sub-1/resources.tsv").read_text().splitlines()
    assert (tmp_path / "logs/sub-3/resources.tsv").read_text().count("sub-3_MEGRE.load") == 1
    found = [line.split("\t")[:2] for line in lines[1:]]
    assert [name for name, _ in found] == [f"{OTHER.name}.load", f"{UNIT.name}.load"] and found[1][1] == "9.0"


def test_a_unit_is_announced_once_and_only_if_all_of_it_was_made():
    done: list[tuple[str, ProcessingUnit]] = []
    watch = _watch()
    watch.done = lambda name, unit: done.append((name, unit))
    watch(_node(UNIT.name, "load"), "end")
    assert done == []
    watch(_node(UNIT.name, "publish_qsm"), "end")
    watch(_node(OTHER.name, "load"), "exception")
    watch(_node(OTHER.name, "publish_qsm"), "end")
    assert done == [(UNIT.name, UNIT)]
