"""Memory, time and threads of a unit's nodes, from the declared costs and the size of the images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qsmxt.bids.units import ProcessingUnit
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.workflows.plan import Group, Plan, Step

#: What a worker with all libraries holds, bytes, and the program beyond it, GB, where nodes run in it.
INTERPRETER, HELD_GB = 1.1e8, 0.12

#: CPU seconds per megavoxel: to import one echo, to write one map, to draw one unit.
READING, WRITING, DRAWING = 0.06, 0.01, 0.13

_BYTES_PER_GB = 1e9


@dataclass(frozen=True)
class Size:
    """Voxels of a volume and number of echoes."""

    voxels: int
    echoes: int

    def bytes_of(self, names: Iterable[str]) -> float:
        """Bytes of the artifacts ``names`` together."""
        return float(sum(self._bytes(name) for name in set(names)))

    def _bytes(self, name: str) -> int:
        kind = ARTIFACTS[name].kind if name in ARTIFACTS else "volume"
        if kind == "acquisition":
            return 0
        each = 1 if kind == "mask" else 4
        return each * self.voxels * (self.echoes if kind == "echoes" else 1)


@dataclass(frozen=True)
class Estimate:
    """What a node needs."""

    mem_gb: float
    cpu_seconds: float
    threads: int


def size_of(unit: ProcessingUnit) -> Size:
    """Size of the images of ``unit``, from the header of the first."""
    from qsmxt.bids.images import read_header

    shape = read_header(unit.files()[0]).shape
    return Size(int(shape[0]) * int(shape[1]) * int(shape[2]), len(unit.echoes))


def estimate_import(size: Size) -> Estimate:
    """Reading holds one image, stored and scaled, besides all echoes of phase and magnitude."""
    held = size.bytes_of(("wrapped_phase", "magnitude", "combined_magnitude")) + 10.0 * size.voxels
    return Estimate((held + INTERPRETER) / _BYTES_PER_GB, READING * size.echoes * size.voxels / 1e6, 1)


def estimate_group(group: Group, size: Size) -> Estimate:
    """The dearest step of the group decides about memory: what it holds, what was made before it, what it needs."""
    made: set[str] = set()
    peak = 0.0
    for step in group.steps:
        held = size.bytes_of({*made, *step.consumes, *step.optional} - set(step.produces))
        own = step.cost.bytes_for(size.voxels, size.echoes) + INTERPRETER
        peak = max(peak, held + own)
        made.update(step.produces)
    seconds = sum(_seconds(step, size) for step in group.steps)
    threads = max((step.cost.threads for step in group.steps), default=1)
    return Estimate(peak / _BYTES_PER_GB, seconds, threads)


def _seconds(step: Step, size: Size) -> float:
    return step.cost.seconds_per_megavoxel * size.voxels / 1e6


def estimate_writing(names: Iterable[str], size: Size) -> Estimate:
    """A map in memory, as file and compressed."""
    names = list(names)
    memory = 16.0 * size.voxels + INTERPRETER
    return Estimate(memory / _BYTES_PER_GB, WRITING * len(names) * size.voxels / 1e6, 1)


def estimate_drawing(size: Size) -> Estimate:
    """Maps, drawings, and spectra of the quality metrics."""
    return Estimate((50.0 * size.voxels + INTERPRETER) / _BYTES_PER_GB, DRAWING * size.voxels / 1e6, 1)


def estimate_plan(plan: Plan, size: Size, saved: Iterable[str]) -> dict[str, Estimate]:
    """The estimate of every node of a unit, by its name."""
    nodes = {"load": estimate_import(size)}
    nodes |= {group.name: estimate_group(group, size) for group in plan.groups}
    nodes["write"] = estimate_writing(saved, size)
    nodes["figures"] = estimate_drawing(size)
    return nodes
