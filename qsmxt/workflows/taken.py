"""What a node took: time, processor time, and the most memory that its process held."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

#: Name of the table, below ``logs``.
RESOURCES = "resources.tsv"


def taken_by(node: Any, wall: float, cpu: float) -> dict[str, Any]:
    """One row of ``logs/sub-<label>/resources.tsv``; the peak of memory is that since :func:`reset_peak_memory`."""
    return {
        "node": node.fullname.partition(".")[2],
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "peak_gb": round(peak_memory() / 1e9, 3),
        "estimated_gb": node.mem_gb,
        "threads": node.n_procs,
    }


def reset_peak_memory() -> None:
    """Let the system count this process's peak of memory from now on (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> float:
    """Most memory that this process held since the last reset, bytes; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024.0 * int(line.split()[1])
    return 0.0
