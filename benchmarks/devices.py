"""The default chain, and every method that can, with arrays on a GPU: wall seconds beside those on the host.

A stage whose method computes on devices (``on_device`` in its declaration) gets its volumes there; the time of the
transfers counts. All other stages run on the host in both columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import chains, heads, speed
from benchmarks.inputs import Inputs
from qsmxt.algorithms.engine import to_host
from qsmxt.phantom.head import Head
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.registry.methods import all_methods, lookup

#: What is said where there is no device.
MISSING = (
    "No device was found: neither CuPy with a GPU nor PyTorch with CUDA is installed here, so nothing was measured. "
    "Install one of them beside 'qsmxt[gpu]'."
)


@dataclass(frozen=True)
class Device:
    """A library with a GPU: its name in words, and what moves a NumPy array there."""

    name: str
    send: Callable[[np.ndarray], Any]

    def arrays(self, given: dict[str, Any]) -> dict[str, Any]:
        """``given`` with its volumes on the device."""
        return {
            name: self.send(value) if isinstance(value, np.ndarray) and ARTIFACTS[name].kind != "acquisition" else value
            for name, value in given.items()
        }


def find() -> Device | None:
    """The first GPU that CuPy or PyTorch sees."""
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() > 0:
            name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
            return Device(f"CuPy {cupy.__version__}, {name}", cupy.asarray)
    except Exception:  # not installed, or its driver is missing: each version raises its own
        pass
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    name = f"PyTorch {torch.__version__}, {torch.cuda.get_device_name(0)}"
    return Device(name, lambda array: torch.asarray(array, device="cuda"))


def chain_table(device: Device, head: Head) -> Iterator[tuple[str, str, float, float]]:
    """``(stage, method, wall seconds on the host, with the device)`` of the default chain, and their sums."""
    chain = chains.default_chain()
    for send in (None, device.arrays):  # compiles kernels, and plans transforms
        chains.run(chain, head, send)
    host, there = (chains.run(chain, head, send).wall for send in (None, device.arrays))
    for stage, seconds in host.items():
        method = chain.methods[stage][0] if stage in chain.methods else "default mask"
        on_device = stage in chain.methods and lookup(stage, method).on_device
        yield stage, f"{method}, {'device' if on_device else 'host'}", seconds, there[stage]
    yield "all", "", sum(host.values()), sum(there.values())


def method_table(device: Device, only: str) -> Iterator[tuple[str, float, float]]:
    """``(method, wall seconds on the host, on the device)`` at the size of :mod:`benchmarks.speed`."""
    head = heads.cached("speed", speed.CASE)
    given = Inputs(head)
    for name, method in all_methods().items():
        if not method.on_device or only not in name:
            continue
        arrays = {key: given[key] for key in method.consumes}
        times = []
        for place in (dict, device.arrays):
            for _ in range(2):  # the first compiles
                start = time.perf_counter()
                for product in method.run(place(arrays), head.grid).values():
                    to_host(product)
                seconds = time.perf_counter() - start
            times.append(seconds)
        yield name, times[0], times[1]
