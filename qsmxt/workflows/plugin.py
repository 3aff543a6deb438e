"""nipype's local plugin, made safe: a killed worker is an error of its node, and no worker outlives the program.

Workers come from a fork server that has imported the libraries once. nipype's own plugin waits for ever when a
worker is killed (for want of memory, say); here its task is repeated once, alone, and fails if it is killed again.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin, run_node

from qsmxt.interfaces.base import end_with_program, quieten_nipype
from qsmxt.workflows.startup import start_fork_server
from qsmxt.workflows.taken import reset_peak_memory, taken_by


def initialize_worker(folder: str, level: int) -> None:
    """First thing a worker does."""
    quieten_nipype(level)
    end_with_program()
    os.environ["NIPYPE_NO_ET"] = "1"
    os.chdir(folder)


def run_measured(node: Any, updatehash: bool, taskid: int) -> dict[str, Any]:
    """nipype's way to run a node, with what it took."""
    began, before = time.monotonic(), time.process_time()
    reset_peak_memory()
    result: dict[str, Any] = run_node(node, updatehash, taskid)
    result["taken"] = taken_by(node, time.monotonic() - began, time.process_time() - before)
    return result


class LocalPlugin(MultiProcPlugin):
    """Run nodes in processes of this machine."""

    pool: ProcessPoolExecutor

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown()
        start_fork_server()
        self.pool = self._new_pool(self.processors)
        self._nodes: dict[int, tuple[Any, bool, int]] = {}
        self._ranks: dict[str, int] = {}
        self.taken: list[dict[str, Any]] = []

    def _new_pool(self, workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=workers,
            mp_context=multiprocessing.get_context("forkserver"),
            initializer=initialize_worker,
            initargs=(self._cwd, logging.getLogger("qsmxt").getEffectiveLevel()),
        )

    def _sort_jobs(self, jobids: Any, scheduler: str | None = "tsort") -> Any:
        """Units in the order in which they started: the first results come early, and less lies about half-done."""
        if scheduler == "mem_thread":
            return super()._sort_jobs(jobids, scheduler=scheduler)
        return sorted(jobids, key=lambda jobid: (self._rank(self.procs[jobid]), jobid))

    def _rank(self, node: Any) -> int:
        return self._ranks.setdefault(node._hierarchy, len(self._ranks))

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        self._nodes[self._taskid] = (node, updatehash, 1)
        self._submit(self._taskid)
        return int(self._taskid)

    def _submit(self, taskid: int) -> None:
        node, updatehash, _ = self._nodes[taskid]
        try:
            future = self.pool.submit(run_measured, node, updatehash, taskid)
        except BrokenProcessPool:
            self.pool.shutdown(wait=False)
            self.pool = self._new_pool(self.processors)
            future = self.pool.submit(run_measured, node, updatehash, taskid)
        future.add_done_callback(partial(self._collect, taskid))
        self._task_obj[taskid] = future

    def _collect(self, taskid: int, future: Future[Any]) -> None:
        try:
            result = future.result()
            self.taken.append(result.pop("taken"))
            self._taskresult[taskid] = result
        except BaseException as error:
            self._taskresult[taskid] = {"result": None, "traceback": [f"{error}\n"], "taskid": taskid, "lost": True}

    def _get_result(self, taskid: int) -> Any:
        result = self._taskresult.get(taskid)
        if result is None or not result.get("lost"):
            return result
        return self._repeat_alone(taskid)

    def _repeat_alone(self, taskid: int) -> Any:
        """Run the task of a lost worker again, in a process of its own, while nothing else is submitted."""
        node, updatehash, _ = self._nodes[taskid]
        with self._new_pool(1) as pool:
            try:
                result = pool.submit(run_measured, node, updatehash, taskid).result()
                self.taken.append(result.pop("taken"))
            except BrokenProcessPool:
                result = {"result": None, "traceback": [_LOST.format(node=node.fullname, memory=node.mem_gb)]}
        self._taskresult[taskid] = result
        return result

    def _clear_task(self, taskid: int) -> None:
        super()._clear_task(taskid)
        self._nodes.pop(taskid, None)
        self._taskresult.pop(taskid, None)


_LOST = (
    "{node}: the process was killed twice, most likely for want of memory (estimated need: {memory:.1f} GB); "
    "give the job more memory, or lower --nprocs\n"
)
