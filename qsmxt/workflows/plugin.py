"""Run nodes in processes of this machine: one event at a time, within its resources, and safe against killed workers.

Workers come from a fork server that has imported the libraries once, and live as long as the run. The program sends
them nodes as soon as something ends and does nothing else meanwhile: nipype's own plugin looks at all nodes several
times a second, collects garbage each time and hashes every input before it sends a node, which for many small nodes
keeps a processor busy; here a worker finds out by itself that a node was done before.

nipype's own plugin also waits for ever when a worker is killed (for want of memory, say); here its task is repeated
once, alone, and fails if it is killed again. The same happens where the thread ends that hands nodes to workers, which
needs memory as well.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import multiprocessing
import os
import queue
import sys
import time
from collections.abc import Callable, Iterable
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

#: Seconds after which it is made sure that somebody still waits for the workers.
PULSE = 5.0


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

    With ``flowing`` a workflow that is run only begins, beside those that began before: the program builds the next one
    meanwhile, waits for room now and then, and at last for the end. ``over`` is told the path of every workflow inside
    of which nothing is left to run.
    """

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self.processors = int(self.plugin_args["n_procs"])
        self.memory_gb = float(self.plugin_args["memory_gb"])
        self.taken: list[dict[str, Any]] = []
        self.flowing = False
        self.over: Callable[[str], None] | None = None
        self._folder = os.getcwd()  # noqa: PTH109
        self._updatehash = self._stop = False
        self._schedule = Schedule((), self.processors, self.memory_gb, ahead=1 if self.processors > 1 else 0)
        self._numbers = itertools.count()
        self._nodes: dict[int, Any] = {}
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
        self._stop = str(config["execution"]["stop_on_first_crash"]).lower() == "true"
        self._schedule.add(self._jobs(graph))
        if self.flowing:
            self._go_on()
        else:
            self.finish()

    def wait_for_room(self, most: int) -> None:
        """Wait until fewer than ``most`` workflows are at work."""
        while len(self._schedule.units) >= most:
            self._wait()

    def finish(self) -> None:
        """Wait for all nodes; raises an error of theirs, if there was any."""
        try:
            self._go_on()
            while self._schedule.unfinished:
                self._wait()
        finally:
            self.close()
        report_nodes_not_run(self._not_run)
        if self._errors:
            raise RuntimeError(self._errors[0])

    def close(self) -> None:
        """Send the workers away as soon as they are done with what they do."""
        dismiss(self._pool)

    def _wait(self) -> None:
        """Wait until a node ends, and go on."""
        while True:
            try:
                number = self._ended.get(timeout=PULSE)
            except queue.Empty:
                if not is_served(self._pool):
                    give_up(self._running.values())
            else:
                break
        self._end(number)
        self._go_on()

    def _go_on(self) -> None:
        """Take what has ended, and start what can."""
        while not self._ended.empty():
            self._end(self._ended.get())
        for job in self._schedule.start():
            self._start(job.name)

    def _jobs(self, graph: Any) -> list[Job]:
        nodes, _ = topological_sort(graph)
        number = {node: next(self._numbers) for node in nodes}
        self._nodes.update({index: node for node, index in number.items()})
        return [
            Job(index, node._hierarchy, tuple(number[n] for n in graph.predecessors(node)), node.n_procs, node.mem_gb)
            for node, index in number.items()
        ]

    def _tell(self, node: Any, status: str) -> None:
        if self._status_callback:
            self._status_callback(node, status)

    def _start(self, number: Any) -> None:
        self._tell(self._nodes[number], "start")
        try:
            future = self._submit(number)
        except Exception as error:  # not even a thread can be started
            future = Future()
            future.set_exception(error)
        self._running[number] = future
        future.add_done_callback(lambda _: self._ended.put(number))

    def _submit(self, number: int) -> Future[Answer]:
        if is_served(self._pool):
            with contextlib.suppress(BrokenProcessPool):
                return self._pool.submit(run_measured, self._nodes[number], self._updatehash)
        else:
            give_up(self._running.values())
        dismiss(self._pool)
        self._pool = self._new_pool(self.processors)
        return self._pool.submit(run_measured, self._nodes[number], self._updatehash)

    def _end(self, number: int) -> None:
        """Take what a worker says of a node, and let the schedule know."""
        answer = self._answer(number)
        node = self._nodes.pop(number)
        del self._running[number]
        if answer.taken is not None:
            self.taken.append(answer.taken)
        if answer.traceback is None:
            self._schedule.done(number)
            self._tell(node, "end")
        else:
            self._fail(number, node, answer.traceback, answer.result)
        if self.over is not None and node._hierarchy not in self._schedule.units:
            self.over(node._hierarchy)

    def _fail(self, number: int, node: Any, traceback: list[str], result: Any) -> None:
        """A node has failed; those that need it will not run."""
        self._tell(node, "exception")
        node._result, node._traceback = result, traceback
        crash_file = _report(node, traceback)
        self._errors.append("".join(traceback))
        if self._stop:
            raise RuntimeError(self._errors[0])
        lost = [self._nodes.pop(index) for index in self._schedule.failed(number)[1:]]  # type: ignore[call-overload]
        self._not_run.append({"node": node, "dependents": [node, *lost], "crashfile": crash_file})

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
        pool = self._new_pool(1)
        try:
            future = pool.submit(run_measured, node, self._updatehash)
            while not wait([future], PULSE).done:
                if not is_served(pool):
                    give_up([future])
            return future.result()
        except BrokenProcessPool:
            return Answer([_LOST.format(node=node.fullname, memory=node.mem_gb)])
        except Exception as error:
            return Answer(format_exception(error))
        finally:
            dismiss(pool)


def is_served(pool: ProcessPoolExecutor) -> bool:
    """Whether the thread lives that hands nodes to the workers of ``pool`` and takes their answers, or will be made."""
    thread: Any = pool._executor_manager_thread
    return thread is None or bool(thread.is_alive())


def dismiss(pool: ProcessPoolExecutor) -> None:
    """Send the workers of ``pool`` away as soon as they are done, or at once if nobody waits for them any more."""
    served = is_served(pool)
    if not served:
        for worker in list((pool._processes or {}).values()):
            worker.kill()
    pool.shutdown(wait=served, cancel_futures=True)


def give_up(futures: Iterable[Future[Answer]]) -> None:
    """Nobody waits for these any more."""
    for future in list(futures):
        if not future.done():
            future.set_exception(BrokenProcessPool("the thread that waits for workers has ended"))


_LOST = (
    "{node}: the process was killed twice, most likely for want of memory (estimated need: {memory:.1f} GB); "
    "give the job more memory, or lower --nprocs\n"
)
