"""Run many units: one nipype workflow, an outcome for each, crash texts where users look for them."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmxt.bids.atomic import write_text
from qsmxt.bids.outputs import Derivatives
from qsmxt.bids.units import ProcessingUnit
from qsmxt.config import Settings
from qsmxt.errors import OutputError, QSMxTError
from qsmxt.interfaces.base import quieten_nipype
from qsmxt.workflows.estimate import Size, size_of
from qsmxt.workflows.plan import Plan, plan_unit
from qsmxt.workflows.resources import Resources
from qsmxt.workflows.segmentation import SegmentationPlan
from qsmxt.workflows.unit import Context, init_unit_wf, unit_node_name

logger = logging.getLogger("qsmxt")

#: Most units in one nipype workflow; its bookkeeping grows with the square of the nodes.
BATCH = 100

#: Seconds between two looks of nipype at its queue.
POLLING = 0.1

WORKFLOW = "qsmxt"


@dataclass
class Outcome:
    """What became of a unit: ``done``, ``skipped`` or ``failed``, and why."""

    name: str
    subject: str
    status: str
    reason: str = ""
    crash_files: list[str] = field(default_factory=list)
    exit_code: int = 0


@dataclass(frozen=True)
class Prepared:
    """A unit that can run."""

    plan: Plan
    size: Size
    segmentation: SegmentationPlan | None = None

    @property
    def unit(self) -> ProcessingUnit:
        """The unit."""
        return self.plan.unit


def prepare(
    units: Sequence[ProcessingUnit],
    settings: Settings,
    segment: Callable[[ProcessingUnit], SegmentationPlan] | None = None,
    derivatives: Mapping[str, Path] | None = None,
) -> tuple[list[Prepared], list[Outcome]]:
    """Plans of units; those that cannot be planned or opened are skipped with the reason.

    ``segment`` plans the segmentation of a unit, if there is to be one; ``derivatives`` may hold masks.
    """
    from qsmxt.bids.acquisition import check_unit

    prepared, skipped = [], []
    for unit in units:
        try:
            check_unit(unit)
            plan = plan_unit(unit, settings, derivatives)
            prepared.append(Prepared(plan, size_of(unit), segment(unit) if segment is not None else None))
            for note in plan.notes:
                logger.warning("%s", note)
        except QSMxTError as error:
            skipped.append(Outcome(unit.name, unit.subject, "skipped", str(error), exit_code=error.exit_code))
    return prepared, skipped


def run_units(
    prepared: Sequence[Prepared], settings: Settings, context: Context, work_dir: Path, resources: Resources
) -> list[Outcome]:
    """Run all units; none stops another. Outcomes come in the order of the units."""
    outcomes: dict[str, Outcome] = {}
    for start in range(0, len(prepared), BATCH):
        with ExitStack() as locks:
            batch = []
            for item in prepared[start : start + BATCH]:
                try:
                    locks.enter_context(unit_lock(work_dir, item.unit))
                    batch.append(item)
                except OutputError as error:
                    outcomes[item.unit.name] = Outcome(item.unit.name, item.unit.subject, "failed", str(error))
            if batch:
                outcomes |= _run_batch(batch, settings, context, work_dir, resources)
    return [outcomes[item.unit.name] for item in prepared]


@contextmanager
def unit_lock(work_dir: Path, unit: ProcessingUnit) -> Iterator[None]:
    """Hold the unit's part of the work folder; the lock ends with the process, however it ends."""
    folder = work_dir / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"{unit_node_name(unit)}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"work folder {work_dir}: cannot be written ({error.strerror})") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{unit.name}: another run works on it in {work_dir}; wait for it or use another --work-dir"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _run_batch(
    batch: Sequence[Prepared], settings: Settings, context: Context, work_dir: Path, resources: Resources
) -> dict[str, Outcome]:
    from nipype.pipeline import engine as pe

    quieten_nipype(logger.getEffectiveLevel())
    workflow = pe.Workflow(name=WORKFLOW, base_dir=str(work_dir))
    workflow.config["execution"] = _execution_config(settings)
    started = time.time()
    watch = Watch({unit_node_name(item.unit): item.unit for item in batch})
    for item in batch:
        unit_workflow = init_unit_wf(item.plan, settings, item.size, context, segmentation=item.segmentation)
        crash_folder = Derivatives(context.out_dir).logs(item.unit.subject)
        nodes = unit_workflow._get_all_nodes()
        watch.awaited[unit_workflow.name] = {node.name for node in nodes if node.name.startswith("publish_")}
        for node in nodes:
            node.config = {"execution": {"crashdump_dir": str(crash_folder)}}
        workflow.add_nodes([unit_workflow])
    problem = ""
    plugin = _plugin(resources, watch)
    try:
        workflow.run(plugin=plugin)
    except Exception as error:
        problem = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        logger.debug("workflow ended with an error", exc_info=True)
    if settings.execution.resource_monitor:
        write_taken(context.out_dir, getattr(plugin, "taken", []))
    return watch.outcomes(context, problem, started)


def write_taken(out_dir: Path, taken: Sequence[dict[str, Any]]) -> None:
    """``logs/resources.tsv``: time and memory of every node that ran, next to its estimate."""
    if taken:
        lines = ["\t".join(taken[0]), *("\t".join(str(value) for value in row.values()) for row in taken)]
        write_text(out_dir / "logs" / "resources.tsv", "".join(f"{line}\n" for line in lines))


def _execution_config(settings: Settings) -> dict[str, Any]:
    return {
        "poll_sleep_duration": POLLING,
        "stop_on_first_crash": settings.execution.stop_on_first_crash,
        "remove_unnecessary_outputs": False,
        "crashfile_format": "txt",
        "hash_method": "content",
        "create_report": False,
        "check_version": False,
        "use_relative_paths": False,
    }


def _plugin(resources: Resources, watch: Watch) -> Any:
    arguments = {"status_callback": watch, **resources.plugin_args}
    if resources.plugin is not None and resources.plugin != "MultiProc":
        import nipype.pipeline.plugins as plugins

        return getattr(plugins, f"{resources.plugin}Plugin")(plugin_args=arguments)
    if resources.plugin is None and resources.nprocs == 1:
        from nipype.pipeline.plugins.linear import LinearPlugin

        return LinearPlugin(plugin_args=arguments)
    from qsmxt.workflows.plugin import LocalPlugin

    limits = {"n_procs": resources.nprocs, "memory_gb": resources.mem_gb, "raise_insufficient": False}
    return LocalPlugin(plugin_args={**limits, **arguments})


class Watch:
    """Follows nodes through nipype's status callback."""

    def __init__(self, units: dict[str, ProcessingUnit]) -> None:
        self.units = units
        self.failed: dict[str, str] = {}
        self.finished: dict[str, set[str]] = {name: set() for name in units}
        self.awaited: dict[str, set[str]] = {name: set() for name in units}

    def __call__(self, node: Any, status: str) -> None:
        parts = node.fullname.split(".")
        name = parts[1] if len(parts) > 2 else ""
        if name not in self.units:
            return
        if status == "exception":
            self.failed.setdefault(name, node.name)
        elif status == "end":
            self.finished[name].add(node.name)
            logger.info("%s: %s finished", name, node.name)

    def outcomes(self, context: Context, problem: str, started: float) -> dict[str, Outcome]:
        """An outcome for every unit; crash files from before ``started`` are those of earlier runs."""
        return {unit.name: self._outcome(name, unit, context, problem, started) for name, unit in self.units.items()}

    def _outcome(self, name: str, unit: ProcessingUnit, context: Context, problem: str, started: float) -> Outcome:
        if name in self.failed:
            files, reason = _crash(Derivatives(context.out_dir).logs(unit.subject), name, started)
            return Outcome(unit.name, unit.subject, "failed", reason or self.failed[name], files, 1)
        if self.awaited[name] <= self.finished[name]:
            return Outcome(unit.name, unit.subject, "done")
        return Outcome(unit.name, unit.subject, "failed", problem or "did not finish", exit_code=1)


def _crash(folder: Path, name: str, started: float) -> tuple[list[str], str]:
    """Crash files of a unit in ``folder``, newest last, and the last error that the newest one tells of."""
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
