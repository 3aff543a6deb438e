"""Processors, threads and memory that a run may use."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmxt.config import ExecutionSettings
from qsmxt.errors import MissingInputError, ParameterError

#: Most threads of one node unless asked for more: beyond it they gain little.
MOST_THREADS = 8


@dataclass(frozen=True)
class Resources:
    """What may be used at once; ``threads`` is ``None`` where it was not asked for."""

    nprocs: int
    mem_gb: float
    threads: int | None = None
    plugin: str | None = None
    plugin_args: dict[str, Any] = field(default_factory=dict)


def find(execution: ExecutionSettings) -> Resources:
    """As asked for, else all processors and nine tenths of the memory that this process may use."""
    plugin, arguments = _plugin(execution.plugin_file)
    nprocs = execution.nprocs or int(arguments.get("n_procs", 0)) or len(os.sched_getaffinity(0))
    memory = execution.mem_gb or 0.9 * memory_limit() / 1e9
    return Resources(nprocs, memory, execution.omp_nthreads, plugin, arguments)


def threads_per_node(resources: Resources, units: int) -> int:
    """Threads of one node: as asked for, else the processors shared out over the units that run at once."""
    if resources.threads is not None:
        return resources.threads
    return max(1, min(MOST_THREADS, resources.nprocs // max(1, units)))


def memory_limit() -> float:
    """Bytes of memory: of the machine, or less where a control group says so."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, float(text))
    return total


def _plugin(file: str | None) -> tuple[str | None, dict[str, Any]]:
    """Name and arguments in a plugin file."""
    if file is None:
        return None, {}
    import yaml

    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingInputError(f"plugin file {file}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise ParameterError(f"plugin file {file}: expected YAML, found {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("plugin"), str):
        raise ParameterError(f"plugin file {file}: expected the keys plugin and plugin_args")
    return values["plugin"], dict(values.get("plugin_args") or {})
