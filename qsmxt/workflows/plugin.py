"""Run nodes in processes of this machine: one event at a time, within its resources, and safe against killed workers.

Workers come from a fork server that has imported the libraries once, and live as long as the run. The program sends
them nodes as soon as something ends and does nothing else meanwhile: nipype's own plugin looks at all nodes several
times a second, collects garbage each time and hashes every input before it sends a node, which for many small nodes
keeps a processor busy; here a worker finds out by itself that a node was done before.

nipype's own plugin also waits for ever when a worker is killed (for want of memory, say); here its task is repeated
once, alone, and fails if it is killed again.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import queue
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from traceback import format_exception
from typing import Any

from nipype.pipeline.engine.utils import topological_sort
from nipype.pipeline.plugins.base import PluginBase
from nipype.pipeline.plugins.tools import report_crash, report_nodes_not_run

from qsmxt.interfaces.base import end_with_program, quieten_nipype
from qsmxt.workflows.schedule import Job, Schedule
from qsmxt.workflows.startup import start_fork_server
from qsmxt.workflows.taken import reset_peak_memory, taken_by

logger = logging.getLogger("qsmxt")


@dataclass(frozen=True)
class Answer:
    """What a worker says of a node: errors and result if it failed, and what it took if it ran at all."""

    traceback: list[str] | None = None
    result: Any = None
    taken: dict[str, Any] | None = None


def initialize_worker(folder: str, level: int) -> None:
    """First thing a worker does."""
    quieten_nipype(level)
    end_with_program()
    os.environ["NIPYPE_NO_ET"] = "1"
    os.chdir(folder)
    gc.freeze()


def run_measured(node: Any, updatehash: bool) -> Answer:
    """Run a node unless its result is there, and measure what it takes."""
    began, before = time.monotonic(), time.process_time()
    reset_peak_memory()
    try:
        done_before = all(node.is_cached()) and not node.interface.always_run
        node.run(updatehash=updatehash)
    except Exception:
        return Answer(format_exception(*sys.exc_info()), _result_of(node))
    taken = None if done_before else taken_by(node, time.monotonic() - began, time.process_time() - before)
    return Answer(taken=taken)


def _report(node: Any, traceback: list[str]) -> str:
    """Write a crash file, if there is room for it: without one the run goes on."""
    try:
        return str(report_crash(node, traceback=traceback))
    except OSError:
        logger.exception("%s: its crash file could not be written", node.fullname)
        return ""


def _result_of(node: Any) -> Any:
    """What a node that failed has left, or nothing."""
    try:
        return node.result
    except Exception:
        return None


class LocalPlugin(PluginBase):
    """Run nodes in processes of this machine.

    ``plugin_args`` are ``n_procs``, ``memory_gb`` and nipype's ``status_callback``; others of nipype's own plugin are
    ignored. ``taken`` holds what every node took that ran.
    """

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self.processors = int(self.plugin_args["n_procs"])
        self.memory_gb = float(self.plugin_args["memory_gb"])
        self.taken: list[dict[str, Any]] = []
        self._folder = os.getcwd()  # noqa: PTH109
        self._updatehash = False
        self._nodes: list[Any] = []
        self._running: dict[int, Future[Answer]] = {}
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._not_run: list[dict[str, Any]] = []
        self._errors: list[str] = []
        start_fork_server()
        self._pool = self._new_pool(self.processors)

    def _new_pool(self, workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=workers,
            mp_context=multiprocessing.get_context("forkserver"),
            initializer=initialize_worker,
            initargs=(self._folder, logger.getEffectiveLevel()),
        )

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Run all nodes of ``graph``; raises an error of theirs at the end, if there was any."""
        self._updatehash = updatehash
        self._nodes, _ = topological_sort(graph)
        schedule = Schedule(self._jobs(graph), self.processors, self.memory_gb)
        stop = str(config["execution"]["stop_on_first_crash"]).lower() == "true"
        try:
            while schedule.unfinished:
                for job in schedule.start():
                    self._start(job.name)
                self._end(self._ended.get(), schedule, stop=stop)
                while not self._ended.empty():
                    self._end(self._ended.get(), schedule, stop=stop)
        finally:
            self._pool.shutdown(cancel_futures=True)
        report_nodes_not_run(self._not_run)
        if self._errors:
            raise RuntimeError(self._errors[0])

    def _jobs(self, graph: Any) -> list[Job]:
        number = {node: index for index, node in enumerate(self._nodes)}
        return [
            Job(index, node._hierarchy, tuple(number[n] for n in graph.predecessors(node)), node.n_procs, node.mem_gb)
            for index, node in enumerate(self._nodes)
        ]

    def _tell(self, node: Any, status: str) -> None:
        if self._status_callback:
            self._status_callback(node, status)

    def _start(self, number: Any) -> None:
        self._tell(self._nodes[number], "start")
        try:
            future = self._pool.submit(run_measured, self._nodes[number], self._updatehash)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._new_pool(self.processors)
            future = self._pool.submit(run_measured, self._nodes[number], self._updatehash)
        self._running[number] = future
        future.add_done_callback(lambda _: self._ended.put(number))

    def _end(self, number: int, schedule: Schedule, *, stop: bool) -> None:
        """Take what a worker says of a node, and let the schedule know."""
        node, answer = self._nodes[number], self._answer(number)
        del self._running[number]
        if answer.taken is not None:
            self.taken.append(answer.taken)
        if answer.traceback is None:
            self._tell(node, "end")
            schedule.done(number)
            return
        self._tell(node, "exception")
        node._result, node._traceback = answer.result, answer.traceback
        crash_file = _report(node, answer.traceback)
        self._errors.append("".join(answer.traceback))
        if stop:
            raise RuntimeError(self._errors[0])
        lost = [self._nodes[index] for index in schedule.failed(number)]  # type: ignore[call-overload]
        self._not_run.append({"node": node, "dependents": lost, "crashfile": crash_file})

    def _answer(self, number: int) -> Answer:
        try:
            return self._running[number].result()
        except BrokenProcessPool:
            wait(self._running.values())  # all were in the pool that broke
            return self._repeat_alone(self._nodes[number])
        except Exception as error:
            return Answer(format_exception(error))

    def _repeat_alone(self, node: Any) -> Answer:
        """Run the node of a lost worker again, in a process of its own, while nothing else runs."""
        with self._new_pool(1) as pool:
            try:
                return pool.submit(run_measured, node, self._updatehash).result()
            except BrokenProcessPool:
                return Answer([_LOST.format(node=node.fullname, memory=node.mem_gb)])


_LOST = (
    "{node}: the process was killed twice, most likely for want of memory (estimated need: {memory:.1f} GB); "
    "give the job more memory, or lower --nprocs\n"
)
