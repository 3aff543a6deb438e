"""Follow the nodes of a run and say what became of every unit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmxt.bids.outputs import Derivatives
from qsmxt.bids.units import ProcessingUnit
from qsmxt.workflows.progress import Progress
from qsmxt.workflows.taken import reset_peak_memory, taken_by

#: Name of the workflow of all units.
WORKFLOW = "qsmxt"

#: Start of the names of the nodes that put an output in place.
_PUBLISH = "publish_"


@dataclass
class Outcome:
    """What became of a unit: ``done``, ``skipped`` or ``failed``, why, and the outputs that were made of it."""

    name: str
    subject: str
    status: str
    reason: str = ""
    crash_files: list[str] = field(default_factory=list)
    exit_code: int = 0
    made: tuple[str, ...] = ()


class Watch:
    """Follows nodes through nipype's status callback.

    If ``clean`` is given, the work folder there of a unit goes away when the last of its nodes is finished.
    ``progress`` is told what begins and ends, ``done`` the name of a workflow that is finished and its unit. In a
    ``serial`` run nipype says of the nodes that it leaves out after a failure that they ended, but not that they began.
    """

    def __init__(self, clean: Path | None = None, progress: Progress | None = None, *, serial: bool = False) -> None:
        self.units: dict[str, ProcessingUnit] = {}
        self.clean, self.serial = clean, serial
        self.done: Callable[[str, ProcessingUnit], None] | None = None
        self.begun: set[str] = set()
        self.taken: list[dict[str, Any]] = []
        self._before = (0.0, 0.0)
        self.progress = progress or Progress({})
        self.started = time.time()
        self.failed: dict[str, str] = {}
        self.finished: dict[str, set[str]] = {}
        self.expected: dict[str, set[str]] = {}

    def expect(self, name: str, unit: ProcessingUnit, nodes: Mapping[str, float]) -> None:
        """The nodes of the workflow ``name`` of ``unit``, with their expected seconds."""
        self.units[name] = unit
        self.finished[name], self.expected[name] = set(), set(nodes)
        self.progress.expect(name, nodes)

    def __call__(self, node: Any, status: str) -> None:
        parts = node.fullname.split(".")
        name = parts[1] if len(parts) > 2 else ""
        if name not in self.units:
            return
        if status == "start":
            self.begun.add(node.fullname)
            self._measure()
            self.progress.started(name, node.name)
        elif status == "exception":
            self.failed.setdefault(name, node.name)
            self._note(node)
            self.progress.ended(name, node.name, failed=True)
        elif status == "end" and (not self.serial or node.fullname in self.begun):
            self.finished[name].add(node.name)
            self._note(node)
            self.progress.ended(name, node.name)
            if self.is_done(name):
                self._finish(name)

    def _finish(self, name: str) -> None:
        """All nodes of a unit are finished."""
        if self.clean is not None:
            shutil.rmtree(self.clean / WORKFLOW / name, ignore_errors=True)
        if self.done is not None:
            self.done(name, self.units[name])

    def _measure(self) -> None:
        """Look at the clocks before a node that runs in this process."""
        if self.serial:
            reset_peak_memory()
            self._before = (time.monotonic(), time.process_time())

    def _note(self, node: Any) -> None:
        """What a node took that ran in this process."""
        if self.serial:
            wall, cpu = self._before
            self.taken.append(taken_by(node, time.monotonic() - wall, time.process_time() - cpu))

    def is_done(self, name: str) -> bool:
        """Whether all nodes of a unit are finished."""
        return self.expected[name] <= self.finished[name]

    def outcomes(self, out_dir: Path, problems: Mapping[str, str]) -> dict[str, Outcome]:
        """An outcome for every unit; ``problems`` are what ended a workflow, by its name, if something did."""
        return {
            unit.name: self._outcome(name, unit, out_dir, problems.get(name, "")) for name, unit in self.units.items()
        }

    def _outcome(self, name: str, unit: ProcessingUnit, out_dir: Path, problem: str) -> Outcome:
        made = self._made(name)
        if name in self.failed:
            files, reason = _crash(Derivatives(out_dir).logs(unit.subject), name, self.started)
            return Outcome(unit.name, unit.subject, "failed", reason or self.failed[name], files, 1, made)
        if self.is_done(name):
            return Outcome(unit.name, unit.subject, "done", made=made)
        return Outcome(unit.name, unit.subject, "failed", problem or "did not finish", exit_code=1, made=made)

    def _made(self, name: str) -> tuple[str, ...]:
        """The outputs of a unit that were put in place."""
        ends = [node for node in self.finished[name] if node.startswith(_PUBLISH)]
        return tuple(sorted(node.removeprefix(_PUBLISH) for node in ends if not node.startswith(f"{_PUBLISH}figures_")))


def _crash(folder: Path, name: str, started: float) -> tuple[list[str], str]:
    """Crash files of a unit since ``started``, newest last, and the last error that the newest one tells of."""
    found = []
    recent = [path for path in folder.glob("crash-*.txt") if path.stat().st_mtime >= started - 1]
    for path in sorted(recent, key=lambda path: path.stat().st_mtime):
        text = path.read_text(encoding="utf-8", errors="replace")
        if f"Node: {WORKFLOW}.{name}." in text:
            found.append((str(path), text))
    if not found:
        return [], ""
    lines = [line.strip() for line in found[-1][1].splitlines() if line.strip()]
    errors = [line.partition(": ")[2] for line in lines if line.startswith("qsmxt.errors.")]
    return [path for path, _ in found], errors[-1] if errors else lines[-1]
