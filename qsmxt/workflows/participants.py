"""Run many units: one nipype workflow, an outcome for each, crash texts where users look for them."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsmxt.bids.atomic import write_text
from qsmxt.bids.outputs import Derivatives
from qsmxt.bids.units import ProcessingUnit
from qsmxt.config import Settings
from qsmxt.errors import InputError, OutputError, QSMxTError
from qsmxt.interfaces.base import quieten_nipype
from qsmxt.workflows.compiling import compiled_ahead
from qsmxt.workflows.estimate import Estimate, Size, estimate_import, estimate_plan, size_of
from qsmxt.workflows.execution import execution_config, is_serial, make_plugin
from qsmxt.workflows.plan import Plan, plan_unit
from qsmxt.workflows.progress import Progress, make_progress
from qsmxt.workflows.resources import Resources, memory_limit
from qsmxt.workflows.taken import RESOURCES
from qsmxt.workflows.unit import Context, init_unit_wf, unit_node_name
from qsmxt.workflows.watch import WORKFLOW, Outcome, Watch

if TYPE_CHECKING:
    from qsmxt.workflows.segmentation import SegmentationPlan

logger = logging.getLogger("qsmxt")

#: Most units in one nipype workflow: the first node waits until it is built.
BATCH = 100


@dataclass(frozen=True)
class Prepared:
    """A unit that can run."""

    plan: Plan
    size: Size
    segmentation: SegmentationPlan | None = None
    source_dicom: Path | None = None

    @property
    def unit(self) -> ProcessingUnit:
        """The unit."""
        return self.plan.unit

    @property
    def saved(self) -> list[str]:
        """Arrays that are written, output by output."""
        return [name for output in self.plan.outputs() for name in self.plan.saved(output)]

    def estimates(self) -> dict[str, Estimate]:
        """Time and memory of every node."""
        nodes = estimate_plan(self.plan, self.size, self.saved)
        if self.segmentation is not None:
            from qsmxt.workflows.segmentation import estimate_segmentation

            nodes |= estimate_segmentation(self.segmentation, self.size)
        return nodes


def prepare(
    units: Sequence[ProcessingUnit],
    settings: Settings,
    segment: Callable[[ProcessingUnit], SegmentationPlan] | None = None,
    derivatives: Mapping[str, Path] | None = None,
    find_source: Callable[[ProcessingUnit], Path] | None = None,
) -> tuple[list[Prepared], list[Outcome]]:
    """Plans of units; those that cannot be planned or opened are skipped with the reason.

    ``segment`` plans the segmentation of a unit, if there is to be one; ``derivatives`` may hold masks;
    ``find_source`` gives a DICOM file of the unit's study, if exported series shall join it.
    """
    prepared, skipped = [], []
    for unit in units:
        try:
            plan = plan_unit(unit, settings, derivatives)
            size = size_of(unit)
            check_size(unit, size)
            segmentation = segment(unit) if segment is not None else None
            source = find_source(unit) if find_source is not None else None
            prepared.append(Prepared(plan, size, segmentation, source))
            for note in plan.notes:
                logger.warning("%s", note)
        except QSMxTError as error:
            skipped.append(Outcome(unit.name, unit.subject, "skipped", str(error), exit_code=error.exit_code))
    return prepared, skipped


def check_size(unit: ProcessingUnit, size: Size) -> None:
    """Refuse a unit whose images alone need more memory than the machine has: headers can announce anything."""
    needed, there = estimate_import(size).mem_gb, memory_limit() / 1e9
    if needed > there:
        raise InputError(
            f"{unit.name}: expected images that fit into {there:.1f} GB of memory, found {size.echoes} echoes of "
            f"{size.voxels:.3g} voxels, which need {needed:.3g} GB; crop them, or use a larger machine"
        )


def run_units(
    prepared: Sequence[Prepared],
    settings: Settings,
    context: Context,
    work_dir: Path,
    resources: Resources,
    done: Callable[[str, str], None] | None = None,
) -> list[Outcome]:
    """Run all units; none stops another, unless that was asked for. Outcomes come in the order of the units.

    ``done`` is told the name and subject of every unit as soon as all is made of it.
    """
    warn_of_memory(prepared, resources)
    if not prepared:
        return []
    first = prepared[0].plan
    with (
        make_progress({unit_node_name(item.unit): expected_seconds(item) for item in prepared}) as progress,
        compiled_ahead(first.groups, first.unit, context.code, work_dir, resources) as kernels,
    ):
        run = _Run(settings, context, work_dir, resources, progress, kernels, done)
        outcomes = _run_batches(prepared, settings, work_dir, run, 1 if is_serial(resources) else BATCH)
    subjects = {unit_node_name(item.unit): item.unit.subject for item in prepared}
    write_taken(context.out_dir, run.taken, subjects)
    if settings.execution.resource_monitor:
        add_rows(context.out_dir / "logs" / RESOURCES, run.taken)
    return [
        outcomes.get(item.unit.name, Outcome(item.unit.name, item.unit.subject, "failed", "not started", exit_code=1))
        for item in prepared
    ]


def expected_seconds(item: Prepared) -> float:
    """Processor time of a unit."""
    return sum(estimate.cpu_seconds for estimate in item.estimates().values())


def _run_batches(
    prepared: Sequence[Prepared], settings: Settings, work_dir: Path, run: _Run, size: int
) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for start in range(0, len(prepared), size):
        if settings.execution.stop_on_first_crash and any(o.status == "failed" for o in outcomes.values()):
            break
        with ExitStack() as locks:
            batch = []
            for item in prepared[start : start + size]:
                try:
                    locks.enter_context(unit_lock(work_dir, item.unit))
                    batch.append(item)
                except OutputError as error:
                    outcomes[item.unit.name] = Outcome(item.unit.name, item.unit.subject, "failed", str(error))
            if batch:
                outcomes |= run.batch(batch)
    return outcomes


def warn_of_memory(prepared: Sequence[Prepared], resources: Resources) -> None:
    """Say which units have a step that is expected to need more memory than there is."""
    for item in prepared:
        needs = estimate_plan(item.plan, item.size, [])
        node, most = max(((name, estimate.mem_gb) for name, estimate in needs.items()), key=lambda pair: pair[1])
        if most > resources.mem_gb:
            logger.warning(
                "%s: %s is expected to need %.1f GB, more than the %.1f GB allowed; it runs alone",
                item.unit.name, node, most, resources.mem_gb,
            )  # fmt: skip


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


class _Run:
    """What all batches of a run share."""

    def __init__(
        self,
        settings: Settings,
        context: Context,
        work_dir: Path,
        resources: Resources,
        progress: Progress,
        kernels: Mapping[str, Path],
        done: Callable[[str, str], None] | None,
    ) -> None:
        self.settings, self.context, self.work_dir, self.resources = settings, context, work_dir, resources
        self.progress, self.kernels, self.done = progress, kernels, done
        self.taken: list[dict[str, Any]] = []

    def batch(self, batch: Sequence[Prepared]) -> dict[str, Outcome]:
        """Run some units in one workflow."""
        workflows = [(item.unit, self._unit_workflow(item)) for item in batch]
        outcomes, taken = run_workflows(
            workflows, self.settings, self.context, self.work_dir, self.resources, progress=self.progress,
            done=self.done,
        )  # fmt: skip
        self.taken += taken
        return outcomes

    def _unit_workflow(self, item: Prepared) -> Any:
        workflow = init_unit_wf(
            item.plan, self.settings, item.size, self.context, segmentation=item.segmentation, source=item.source_dicom
        )
        for group in item.plan.groups:
            if group.name in self.kernels:
                workflow.get_node(group.name).inputs.kernels = str(self.kernels[group.name])
        return workflow


def run_workflows(
    workflows: Sequence[tuple[ProcessingUnit, Any]],
    settings: Settings,
    context: Context,
    work_dir: Path,
    resources: Resources,
    *,
    progress: Progress | None = None,
    done: Callable[[str, str], None] | None = None,
) -> tuple[dict[str, Outcome], list[dict[str, Any]]]:
    """Run workflows side by side; what became of the unit of each, and what every node took."""
    from nipype.pipeline import engine as pe

    quieten_nipype(logger.getEffectiveLevel())
    whole = pe.Workflow(name=WORKFLOW, base_dir=str(work_dir))
    whole.config["execution"] = execution_config(settings)
    clean = work_dir if settings.execution.clean_work else None
    units = {unit_node_name(unit): unit for unit, _ in workflows}
    watch = Watch(units, clean, progress, serial=is_serial(resources))
    for unit, workflow in workflows:
        nodes = workflow._get_all_nodes()
        watch.expect(workflow.name, {node.name: getattr(node, "cpu_seconds", 0.0) for node in nodes})
        crash_folder = Derivatives(context.out_dir).logs(unit.subject)
        for node in nodes:
            node.config = {"execution": {"crashdump_dir": str(crash_folder)}}
        whole.add_nodes([workflow])
    plugin = make_plugin(resources, watch)
    if done is not None:
        watch.done = _teller(plugin, context.out_dir, {unit.name: node for node, unit in units.items()}, done)
    problem = ""
    try:
        whole.run(plugin=plugin)
    except Exception as error:
        problem = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        logger.debug("workflow ended with an error", exc_info=True)
    return watch.outcomes(context.out_dir, problem), getattr(plugin, "taken", watch.taken)


def _teller(
    plugin: Any, out_dir: Path, nodes: Mapping[str, str], done: Callable[[str, str], None]
) -> Callable[[str, str], None]:
    """What tells of a unit as soon as it is written what its ``nodes`` took."""

    def tell(name: str, subject: str) -> None:
        try:
            write_taken(out_dir, getattr(plugin, "taken", ()), {nodes[name]: subject})
        except (OSError, QSMxTError) as error:
            logger.debug("%s: %s", name, error)
        done(name, subject)

    return tell


def write_taken(out_dir: Path, taken: Sequence[dict[str, Any]], subjects: Mapping[str, str]) -> None:
    """``logs/sub-<label>/resources.tsv``: time and memory of all nodes that ran; ``subjects`` by names of workflows."""
    for subject in sorted(set(subjects.values())):
        own = [row for row in taken if subjects.get(str(row["node"]).partition(".")[0]) == subject]
        add_rows(Derivatives(out_dir).logs(subject) / RESOURCES, own)


def add_rows(path: Path, taken: Sequence[dict[str, Any]]) -> None:
    """Put rows into a table of time and memory; units that did not run keep theirs."""
    if not taken:
        return
    now = {str(row["node"]).partition(".")[0] for row in taken}
    head, rows = "\t".join(taken[0]), ["\t".join(str(value) for value in row.values()) for row in taken]
    try:
        before = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        before = []
    kept = [line for line in before[1:] if before[0] == head and line.partition(".")[0] not in now]
    write_text(path, "".join(f"{line}\n" for line in (head, *kept, *rows)))
