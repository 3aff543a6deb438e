"""Workflows of units side by side: each is built while others run, and what became of all is known at the end."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from qsmxt.bids.outputs import Derivatives
from qsmxt.bids.units import ProcessingUnit
from qsmxt.config import Settings
from qsmxt.interfaces.base import quieten_nipype
from qsmxt.workflows.execution import execution_config, is_local, is_serial, make_plugin
from qsmxt.workflows.progress import Progress
from qsmxt.workflows.resources import Resources
from qsmxt.workflows.unit import Context
from qsmxt.workflows.watch import WORKFLOW, Outcome, Watch

logger = logging.getLogger("qsmxt")

#: Most units that one of nipype's own plugins gets at once: the first node waits until all are built.
BATCH = 100

#: Units that are at work on this machine: so many for every processor, and so many at least.
OPEN_PER_PROCESSOR, LEAST_OPEN = 2, 8


class Flow(AbstractContextManager["Flow"]):
    """Runs the workflows that it is given; none stops another, unless that was asked for.

    In workers of this machine a workflow begins when it is added, and :meth:`add` returns as soon as there is room for
    another: no node waits until a whole study is planned, and no processor until the last of a batch is done. In this
    process workflows run one after the other; plugins of nipype get :data:`BATCH` of them at a time.

    ``done`` is told the unit of every workflow all of which is made, and what its nodes took.
    """

    def __init__(
        self,
        settings: Settings,
        context: Context,
        work_dir: Path,
        resources: Resources,
        progress: Progress | None = None,
        done: Callable[[ProcessingUnit, list[dict[str, Any]]], None] | None = None,
    ) -> None:
        quieten_nipype(logger.getEffectiveLevel())
        self.settings, self.out_dir, self.work_dir, self.resources = settings, context.out_dir, work_dir, resources
        clean = work_dir if settings.execution.clean_work else None
        self.watch = Watch(clean, progress, serial=is_serial(resources))
        if done is not None:
            self.watch.done = lambda name, unit: done(unit, self.taken()[name])
        self._taken: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._problems: dict[str, str] = {}
        self._at_work: dict[str, ExitStack] = {}
        self._batch: list[Any] = []
        self._local: Any = None
        if is_local(resources):
            self._local = make_plugin(resources, self.watch)
            self._local.flowing, self._local.over = True, self._release

    def __exit__(self, *arguments: Any) -> None:
        """End what waits; what runs comes to its end."""
        if self._local is not None:
            self._local.close()
        for held in self._at_work.values():
            held.close()

    @property
    def stopped(self) -> bool:
        """Whether nothing more should be added: something failed, and this was asked for."""
        return bool(self.settings.execution.stop_on_first_crash and self.watch.failed)

    def add(self, unit: ProcessingUnit, workflow: Any, held: ExitStack | None = None) -> None:
        """Run ``workflow`` of ``unit``; ``held`` is closed when nothing of it runs any more."""
        nodes = workflow._get_all_nodes()
        crash_folder = Derivatives(self.out_dir).logs(unit.subject)
        for node in nodes:
            node.config = {"execution": {"crashdump_dir": str(crash_folder)}}
        self.watch.expect(workflow.name, unit, {node.name: getattr(node, "cpu_seconds", 0.0) for node in nodes})
        self._at_work[workflow.name] = held or ExitStack()
        self._batch.append(workflow)
        if self._local is not None:
            self._attempt(self._run_batch)
            self._attempt(self._local.wait_for_room, max(LEAST_OPEN, OPEN_PER_PROCESSOR * self.resources.nprocs))
        elif len(self._batch) == (1 if is_serial(self.resources) else BATCH):
            self._attempt(self._run_batch)

    def finish(self) -> dict[str, Outcome]:
        """Wait until everything has ended; what became of the units, by their names."""
        if self._batch:
            self._attempt(self._run_batch)
        if self._local is not None and not self.stopped:
            self._attempt(self._local.finish)
        return self.watch.outcomes(self.out_dir, self._problems)

    def taken(self) -> Mapping[str, list[dict[str, Any]]]:
        """What the nodes took that ran up to now, by the name of the workflow."""
        rows = self.watch.taken if self._local is None else self._local.taken
        for row in rows:
            self._taken[str(row["node"]).partition(".")[0]].append(row)
        rows.clear()
        return self._taken

    def _run_batch(self) -> None:
        from nipype.pipeline import engine as pe

        whole = pe.Workflow(name=WORKFLOW, base_dir=str(self.work_dir))
        whole.config["execution"] = execution_config(self.settings)
        whole.add_nodes(self._batch)
        names = [workflow.name for workflow in self._batch]
        self._batch = []
        if self._local is not None:
            whole.run(plugin=self._local)
            return
        try:
            whole.run(plugin=make_plugin(self.resources, self.watch))
        finally:
            for name in names:
                self._release(f"{WORKFLOW}.{name}")

    def _release(self, path: str) -> None:
        """Nothing runs any more of the workflow at ``path``."""
        self._at_work.pop(path.partition(".")[2]).close()

    def _attempt(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call ``function``; an error is the end of all workflows that are at work, for want of another reason."""
        names = list(self._at_work)
        try:
            function(*arguments)
        except Exception as error:
            text = str(error).strip().splitlines()
            self._problems |= dict.fromkeys(names, text[-1] if text else type(error).__name__)
            logger.debug("workflow ended with an error", exc_info=True)
