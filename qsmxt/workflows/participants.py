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
from qsmxt.workflows.compiling import compiled_ahead, remember
from qsmxt.workflows.estimate import Estimate, Size, estimate_import, estimate_plan, size_of
from qsmxt.workflows.execution import is_serial
from qsmxt.workflows.flow import Flow
from qsmxt.workflows.plan import Plan, plan_unit
from qsmxt.workflows.progress import make_progress
from qsmxt.workflows.resources import Resources, memory_limit
from qsmxt.workflows.taken import RESOURCES
from qsmxt.workflows.unit import Context, init_unit_wf, unit_node_name
from qsmxt.workflows.watch import Outcome

if TYPE_CHECKING:
    from qsmxt.workflows.segmentation import SegmentationPlan

logger = logging.getLogger("qsmxt")


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
    outcomes: dict[str, Outcome] = {}
    written: set[str] = set()

    def tell(unit: ProcessingUnit, taken: list[dict[str, Any]]) -> None:
        try:
            add_rows(Derivatives(context.out_dir).logs(unit.subject) / RESOURCES, taken)
            written.add(unit_node_name(unit))
        except (OSError, QSMxTError) as error:
            logger.debug("%s: %s", unit.name, error)
        if done is not None:
            done(unit.name, unit.subject)

    with (
        make_progress({unit_node_name(item.unit): expected_seconds(item) for item in prepared}) as progress,
        compiled_ahead(first.groups, first.unit, context.code, work_dir, resources) as kernels,
        Flow(settings, context, work_dir, resources, progress, tell) as flow,
    ):
        for item in prepared:
            if flow.stopped:
                break
            with ExitStack() as lock:
                try:
                    lock.enter_context(unit_lock(work_dir, item.unit))
                except OutputError as error:
                    outcomes[item.unit.name] = Outcome(item.unit.name, item.unit.subject, "failed", str(error))
                    continue
                workflow = unit_workflow(item, settings, context, kernels)
                flow.add(item.unit, workflow, lock.pop_all())
        outcomes |= flow.finish()
        taken = flow.taken()
    made = outcomes.get(first.unit.name)
    if made is not None and made.status == "done" and is_serial(resources):
        remember(first.groups, first.unit, context.code)
    subjects = {unit_node_name(item.unit): item.unit.subject for item in prepared}
    write_taken(context.out_dir, {name: rows for name, rows in taken.items() if name not in written}, subjects)
    if settings.execution.resource_monitor:
        add_rows(context.out_dir / "logs" / RESOURCES, [row for rows in taken.values() for row in rows])
    return [
        outcomes.get(item.unit.name, Outcome(item.unit.name, item.unit.subject, "failed", "not started", exit_code=1))
        for item in prepared
    ]


def unit_workflow(item: Prepared, settings: Settings, context: Context, kernels: Mapping[str, Path]) -> Any:
    """The workflow of a unit, whose groups wait for their ``kernels``."""
    workflow = init_unit_wf(
        item.plan, settings, item.size, context, segmentation=item.segmentation, source=item.source_dicom
    )
    for group in item.plan.groups:
        if group.name in kernels:
            workflow.get_node(group.name).inputs.kernels = str(kernels[group.name])
    return workflow


def expected_seconds(item: Prepared) -> float:
    """Processor time of a unit."""
    return sum(estimate.cpu_seconds for estimate in item.estimates().values())


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


def write_taken(out_dir: Path, taken: Mapping[str, Sequence[dict[str, Any]]], subjects: Mapping[str, str]) -> None:
    """``logs/sub-<label>/resources.tsv``: time and memory of nodes by their workflow; ``subjects`` by workflow, too."""
    for name, rows in taken.items():
        add_rows(Derivatives(out_dir).logs(subjects[name]) / RESOURCES, rows)


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
