"""A worker that is killed is an error of its node, not the end of everything."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor

import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

from qsmxt.workflows import plugin
from qsmxt.workflows.plugin import LocalPlugin


def _killed(marker: str, times: int) -> str:
    """Be killed like a process without memory, the first ``times`` times."""
    import os
    import signal
    from pathlib import Path

    with Path(marker).open("a") as stream:
        stream.write("x")
    if Path(marker).stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def _harmless(folder: str, number: int) -> str:
    import time
    from pathlib import Path

    time.sleep(0.2)
    (Path(folder) / f"done{number}").write_text("x")
    return "done"


def _workflow(folder, times):
    workflow = pe.Workflow(name="w", base_dir=str(folder))
    workflow.config["execution"] = {
        "poll_sleep_duration": 0.05, "crashdump_dir": str(folder / "crash"), "crashfile_format": "txt",
        "stop_on_first_crash": False,
    }  # fmt: skip
    victim = pe.Node(Function(function=_killed, output_names=["out"]), name="victim")
    victim.inputs.marker, victim.inputs.times = str(folder / "marker"), times
    nodes = [victim]
    for number in range(4):
        node = pe.Node(Function(function=_harmless, output_names=["out"]), name=f"harmless{number}")
        node.inputs.folder, node.inputs.number = str(folder), number
        nodes.append(node)
    workflow.add_nodes(nodes)
    return workflow


def _run(workflow, statuses):
    local = LocalPlugin(
        plugin_args={"n_procs": 2, "memory_gb": 8, "status_callback": lambda node, s: statuses.append((node.name, s))}
    )
    return workflow.run(plugin=local)


def test_a_task_killed_once_is_repeated(tmp_path):
    statuses: list = []
    _run(_workflow(tmp_path, times=1), statuses)
    assert ("victim", "end") in statuses
    assert (tmp_path / "marker").read_text() == "xx"
    assert all((tmp_path / f"done{n}").exists() for n in range(4))


def test_a_task_killed_for_ever_fails_and_the_others_finish(tmp_path):
    statuses: list = []
    with pytest.raises(RuntimeError):
        _run(_workflow(tmp_path, times=99), statuses)
    assert ("victim", "exception") in statuses
    assert {name for name, status in statuses if status == "end"} == {f"harmless{n}" for n in range(4)}
    (crash,) = (tmp_path / "crash").glob("crash-*-victim-*.txt")
    assert "killed twice, most likely for want of memory" in crash.read_text()


def test_nodes_are_run_again_if_nobody_waits_for_the_workers_any_more(tmp_path, monkeypatch):
    from concurrent.futures import process

    served, threads = process._ExecutorManagerThread.run, []

    def end_at_once_the_first_time(self):
        threads.append(self)
        if len(threads) > 1:
            served(self)

    monkeypatch.setattr(process._ExecutorManagerThread, "run", end_at_once_the_first_time)
    monkeypatch.setattr(plugin, "PULSE", 0.2)
    statuses: list = []
    _run(_workflow(tmp_path, times=0), statuses)
    assert {name for name, status in statuses if status == "end"} == {"victim", *(f"harmless{n}" for n in range(4))}
    assert len(threads) > 1


def test_a_node_that_cannot_be_handed_to_a_worker_fails_alone(tmp_path, monkeypatch):
    submit, refused = ProcessPoolExecutor.submit, []

    def refuse_once(self, *arguments):
        if not refused:
            refused.append(True)
            raise RuntimeError("can't start new thread")
        return submit(self, *arguments)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", refuse_once)
    statuses: list = []
    with pytest.raises(RuntimeError, match="can't start new thread"):
        _run(_workflow(tmp_path, times=0), statuses)
    assert sorted(status for _, status in statuses if status != "start") == ["end"] * 4 + ["exception"]


def test_the_working_folder_stays(tmp_path):
    before = os.getcwd()  # noqa: PTH109
    _run(_workflow(tmp_path, times=0), [])
    assert os.getcwd() == before  # noqa: PTH109


def test_units_are_finished_one_after_the_other(tmp_path):
    workflow = pe.Workflow(name="w", base_dir=str(tmp_path))
    workflow.config["execution"] = {"poll_sleep_duration": 0.02, "stop_on_first_crash": False}
    for unit in ("a", "b", "c"):
        inner = pe.Workflow(name=unit)
        nodes = []
        for number in range(3):
            node = pe.Node(
                Function(function=_after, input_names=["before", "number"], output_names=["out"]), name=f"n{number}"
            )
            node.inputs.number = number
            if nodes:
                inner.connect(nodes[-1], "out", node, "before")
            else:
                node.inputs.before = 0
                inner.add_nodes([node])
            nodes.append(node)
        workflow.add_nodes([inner])
    order: list = []
    plugin = LocalPlugin(
        plugin_args={
            "n_procs": 1, "memory_gb": 8,
            "status_callback": lambda node, status: order.append(node.fullname) if status == "end" else None,
        }
    )  # fmt: skip
    workflow.run(plugin=plugin)
    units = [name.split(".")[1] for name in order]
    assert units == sorted(units) and len(units) == 9
    assert {row["node"] for row in plugin.taken} == {name.partition(".")[2] for name in order}


def _after(before: int, number: int) -> int:
    return before + number
