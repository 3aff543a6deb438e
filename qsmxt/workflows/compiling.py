"""Kernels are compiled side by side while the first images are still being read.

Compiling the kernels of the default methods takes longer than running them, and each node would begin with its own
share while the other processors wait. So the groups of the first unit run ahead on a small sphere, in processes of
their own, which fills the cache of kernels. Every group has a file that stays locked until its kernels are there, and
its nodes wait for that. The lock ends with the process, however it ends; whatever was not compiled then is compiled
where it is needed. What was compiled once is remembered beside the kernels, also after a run in one process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.algorithms import kernel_cache
from qsmxt.bids.units import ProcessingUnit
from qsmxt.geometry import Grid
from qsmxt.interfaces.acquisition import REGION_FILES
from qsmxt.interfaces.methods import BuildMask, RunMethods
from qsmxt.interfaces.state import State, describe_grid, digest, save_arrays
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.workflows.plan import MASK_STEP, Group, available_artifacts
from qsmxt.workflows.resources import Resources

#: The small sphere: voxels of a size that makes it a head.
GRID = Grid((36, 42, 38), (5.0, 5.0, 5.0))
RADIUS = 70.0
ECHO_TIMES = (0.004, 0.012, 0.020, 0.028)


@dataclass(frozen=True)
class Part:
    """One group as another process needs it."""

    mask: bool
    steps: list[dict[str, Any]]
    needs: list[str]
    echoes: int


def parts_of(groups: Sequence[Group], unit: ProcessingUnit) -> dict[str, Part]:
    """The groups of ``unit`` by name, each with those of its arrays that are there when it runs.

    Steps that need a region from a file of other derivatives are left out.
    """
    known, parts = available_artifacts(unit), {}
    for group in groups:
        mask = [step.name for step in group.steps] == [MASK_STEP]
        there, steps = set(known), []
        for step in group.steps:
            if not set(step.consumes) & set(REGION_FILES.values()) - there:
                steps.append(step.to_dict())
                there |= set(step.produces)
        parts[group.name] = Part(mask, steps, sorted(group.needs() & known), len(unit.echoes))
        known = there
    return parts


@contextlib.contextmanager
def compiled_ahead(
    groups: Sequence[Group], unit: ProcessingUnit, code: str, folder: Path, resources: Resources
) -> Iterator[dict[str, Path]]:
    """Compile what ``groups`` need, if it was not before; yields the file to wait for, by name of the group.

    Parameters
    ----------
    groups, unit
        One unit and its groups.
    code
        Version and digest of the code.
    folder
        Where the files to wait for are made.
    resources
        With one processor, or nodes that run elsewhere, there is nothing to gain.
    """
    if resources.nprocs < 2 or resources.plugin not in (None, "MultiProc"):
        yield {}
        return
    marked = {name: (asdict(part), _mark(part, code)) for name, part in parts_of(groups, unit).items()}
    tasks = {name: task for name, task in marked.items() if not _known(task[1])}
    locks = {name: folder / "locks" / f"kernels-{name}.lock" for name in tasks}
    processes = []
    names = list(tasks)
    shares = [names[:1], names[1:]] if resources.nprocs == 2 else [[name] for name in names]
    for share in shares:
        if share:
            # a folder that cannot be written costs time here; the units say what is wrong
            with contextlib.suppress(OSError):
                processes.append(_start([tasks[name] for name in share], [locks[name] for name in share]))
    try:
        yield locks
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def remember(groups: Sequence[Group], unit: ProcessingUnit, code: str) -> None:
    """Note that this process has run all ``groups`` of ``unit``, so that later runs need not compile them ahead."""
    for part in parts_of(groups, unit).values():
        with contextlib.suppress(OSError):
            (kernel_cache.chosen() / _mark(part, code)).touch()


def _mark(part: Part, code: str) -> str:
    return f"compiled-{digest(asdict(part), code)}"


def _known(mark: str) -> bool:
    return any((folder / mark).exists() for folder in kernel_cache.folders())


def _start(tasks: list[tuple[dict[str, Any], str]], locks: list[Path]) -> subprocess.Popen[bytes]:
    """A process that compiles ``tasks`` in order and unlocks a file after each."""
    descriptors = []
    for lock in locks:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        # held already: another run compiles the same, and both may
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        descriptors.append(descriptor)
    process = subprocess.Popen(
        [sys.executable, "-m", "qsmxt.workflows.compiling", *map(str, descriptors)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=descriptors,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for descriptor in descriptors:
        os.close(descriptor)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(f"{json.dumps(tasks)}\n".encode())
        process.stdin.flush()
    return process


def compile_part(part: Part, code: str = "") -> None:
    """Run the steps of a group on the small sphere."""
    with tempfile.TemporaryDirectory(prefix="qsmxt-") as folder:
        state = State(
            fingerprint=code,
            grid=describe_grid(GRID),
            affine=np.diag([*GRID.voxel_size, 1.0]).tolist(),
            arrays=save_arrays(Path(folder), {name: _stand_in(name, part.echoes) for name in part.needs}),
        )
        kind = BuildMask if part.mask else RunMethods
        kind(state=state.to_json(), plan=json.dumps({"steps": part.steps}), code=code).run(cwd=folder)


def _stand_in(name: str, echoes: int) -> Any:
    """An array of the type and the order of magnitude of the artifact ``name``."""
    if name == "echo_times":
        return np.array(ECHO_TIMES[:echoes] if echoes <= len(ECHO_TIMES) else np.arange(1, echoes + 1) * 0.005)
    if name == "field_strength":
        return np.float64(3.0)
    axes = [(np.arange(n) - (n - 1) / 2) * v for n, v in zip(GRID.shape, GRID.voxel_size, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = x * x + y * y + z * z < RADIUS**2
    kind = ARTIFACTS[name].kind if name in ARTIFACTS else "mask" if name.endswith("_mask") else "volume"
    if kind == "mask":
        return inside
    field = (0.2 * np.cos(x / 20) * np.sin(y / 25 + z / 30)).astype(np.float32)
    if kind == "echoes":
        times = _stand_in("echo_times", echoes)
        if ARTIFACTS[name].unit == "rad":
            return np.stack([np.angle(np.exp(800j * t * field)) for t in times]).astype(np.float32)
        return np.stack([np.where(inside, 100 * np.exp(-t / 0.03), 1.0) for t in times]).astype(np.float32)
    if kind != "volume":
        raise ValueError(f"no stand-in for {name}, which is of the kind {kind}")
    if ARTIFACTS[name].unit == "ppm" and not name.endswith("_noise"):
        return field
    return np.where(inside, 1.0, 0.1).astype(np.float32)


def main(descriptors: Sequence[str]) -> None:
    """What the process of :func:`_start` does; it ends when the program that started it does."""
    tasks = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    for (values, mark), descriptor in zip(tasks, descriptors, strict=True):
        try:
            compile_part(Part(**values))
            (kernel_cache.chosen() / mark).touch()
        finally:
            os.close(int(descriptor))


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
