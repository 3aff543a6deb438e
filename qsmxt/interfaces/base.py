"""What all interfaces share: threads follow the node, and a worker ends with the program that started it."""

from __future__ import annotations

import fcntl
import functools
import multiprocessing.connection
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, Undefined, isdefined, traits

from qsmxt.interfaces.state import State


class StepInputSpec(BaseInterfaceInputSpec):
    """Inputs of a step that continues a state."""

    state = traits.Str(mandatory=True, desc="state before the step (JSON)")
    second = traits.Str(desc="another state to unite with it (JSON)")
    third = traits.Str(desc="another state to unite with it (JSON)")
    plan = traits.Str("{}", usedefault=True, desc="steps with all their parameters (JSON)")
    code = traits.Str(mandatory=True, desc="version and digest of the code")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads of kernels and transforms")
    kernels = traits.Str(nohash=True, desc="file that is locked while the kernels of the step are compiled")


class StateOutputSpec(TraitedSpec):
    """Output of a step that continues a state."""

    state = traits.Str(desc="state after the step (JSON)")


class Interface(SimpleInterface):
    """Base of all interfaces of this package."""

    def _state(self) -> State:
        state = State.from_json(self.inputs.state)
        for more in (self.inputs.second, self.inputs.third):
            if isdefined(more):
                state = state.united(State.from_json(more))
        return state

    def _run_interface(self, runtime: Any) -> Any:
        use_threads(getattr(self.inputs, "num_threads", 1))
        if isdefined(getattr(self.inputs, "kernels", Undefined)):
            wait_for(self.inputs.kernels)
        self.execute(runtime.cwd)
        return runtime

    def execute(self, folder: str) -> None:
        """Do the work in ``folder`` and fill ``self._results``."""
        raise NotImplementedError


def use_threads(count: int) -> None:
    """Let kernels, transforms, OpenMP and ITK use ``count`` threads.

    Linear algebra keeps to one: the last digits of its sums depend on the number.
    """
    from qsmxt.algorithms import parallel

    parallel.set_thread_count(count)
    libraries = _libraries(len(sys.modules))
    libraries.limit(limits=1, user_api="blas")
    libraries.limit(limits=count, user_api="openmp")
    os.environ["OMP_NUM_THREADS"] = str(count)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(count)


@functools.lru_cache(maxsize=1)
def _libraries(modules: int) -> Any:
    """The libraries with threads of their own; looked for again whenever there are more ``modules`` than before."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def wait_for(file: str) -> None:
    """Wait until nobody holds the lock of ``file``."""
    with suppress(OSError), Path(file).open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)


def end_with_program() -> None:
    """Have this worker killed when the program that asked for it ends, so that nothing writes after a killed run.

    The parent that counts is the program, not the fork server, which in turn lives as long as any worker does.
    """
    program = multiprocessing.parent_process()
    if program is not None:
        threading.Thread(target=_wait_and_die, args=(program.sentinel,), daemon=True).start()


def _wait_and_die(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def quieten_nipype(level: int) -> None:
    """Let nipype speak only where everything is asked for (``level`` DEBUG)."""
    import logging

    for name in ("nipype", "nipype.workflow", "nipype.interface", "nipype.utils"):
        logging.getLogger(name).setLevel(logging.INFO if level <= logging.DEBUG else logging.CRITICAL + 1)
