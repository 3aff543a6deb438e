"""What scale costs: planning thousands of units, the start with one label, two processors against one, and what
a whole head takes beside its methods.

All are run as a user would run them, with the bytecode of the package in place as an installation leaves it; time is
CPU time of the command and its workers unless it says otherwise, so that a busy machine does not matter. Speed-up
and overhead need an idle machine with two processors.
"""

from __future__ import annotations

import compileall
import csv
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

#: A mask that is quick and right for coarse heads.
_MASK = ("--mask", "magnitude:rss,robust,erode:5", "--no-mask-human-brain")

#: Runs of which the sums count: a machine that others use is not always as fast.
TURNS = 5

#: Nodes that read images and write maps, which every program has to do.
_IMAGES = ("load", "write_")

#: Nodes that are no methods.
_BESIDE = ("fingerprint", "load", "write_", "publish_", "figures_")

#: Nodes that hold no images: their memory is that of the process.
_RESTING = ("fingerprint", "publish_")


def write_many(root: Path, subjects: int, echoes: int) -> None:
    """A dataset of tiny images, ``subjects`` times the same bytes."""
    root.mkdir(parents=True)
    description = {"Name": "many", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")
    values = np.random.default_rng(0).integers(-2048, 2048, (8, 8, 8)).astype(np.int16)
    content = gzip.compress(nibabel.Nifti1Image(values, np.eye(4)).to_bytes(), 1, mtime=0)
    for subject in range(subjects):
        folder = root / f"sub-{subject:05d}" / "anat"
        folder.mkdir(parents=True)
        for echo in range(1, echoes + 1):
            facts = {"EchoTime": 0.004 * echo, "MagneticFieldStrength": 3.0}
            for part, more in (("mag", {}), ("phase", {"Units": "arbitrary"})):
                stem = f"sub-{subject:05d}_echo-{echo}_part-{part}_MEGRE"
                (folder / f"{stem}.nii.gz").write_bytes(content)
                (folder / f"{stem}.json").write_text(json.dumps({**facts, **more}), encoding="utf-8")


def run(*arguments: object) -> tuple[float, float, float]:
    """Wall s, CPU s and peak GB (of the largest process) of a command line of qsmxt."""
    command = [sys.executable, "-m", "qsmxt", *map(str, arguments), "--skip-bids-validation"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"{' '.join(command)}: failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, usage.ru_maxrss * 1024 / 1e9


def plan_thousands(folder: Path) -> tuple[str, str, str]:
    """5,000 units, three echoes."""
    write_many(folder / "five", 5000, 3)
    wall, cpu, peak = run(folder / "five", folder / "out5", "participant", "--dry-run")
    return "5,000 units planned", f"{wall:.0f} s ({cpu:.0f} s CPU), {peak:.2f} GB", "60 s, 1 GB"


def start_one(folder: Path) -> tuple[str, str, str]:
    """One label of 1,000 subjects: until the first result of a node."""
    write_many(folder / "thousand", 1000, 5)
    work = folder / "work1"
    command = [
        sys.executable, "-m", "qsmxt", str(folder / "thousand"), str(folder / "out1"), "participant",
        "--participant-label", "00500", "-w", str(work), "--skip-bids-validation", "--nprocs", "2",
    ]  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(work.glob("qsmxt/*/fingerprint/_0x*")):
        time.sleep(0.01)
    wall = time.monotonic() - began
    process.wait()
    return "first node, one label of 1,000", f"{wall:.1f} s", "6 s"


def share(folder: Path, subjects: int = 50) -> list[tuple[str, str, str]]:
    """Heads of 64 x 64 x 64 on one processor and on two in turn; the sums of all turns count."""
    from qsmxt.phantom.dataset import write_bids

    write_bids(folder / "fifty", subjects, voxel_size=(3.0, 3.0, 3.0), echo_times=(0.005, 0.011, 0.017), seed=0)
    walls: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(TURNS):
        for processes, measured in walls.items():
            out, work = folder / f"out{turn}-{processes}", folder / f"work{turn}-{processes}"
            limits = ("--nprocs", processes, "--omp-nthreads", 1)
            wall, _, _ = run(folder / "fifty", out, "participant", "-w", work, *limits, *_MASK)
            measured.append(wall)
            shutil.rmtree(out)
            shutil.rmtree(work)
    rows = [
        (f"{subjects} heads, {processes} processors", f"{_mean_of(measured)} s", "")
        for processes, measured in walls.items()
    ]
    each = [one / two for one, two in zip(walls[1], walls[2], strict=True)]
    speed_up = f"{sum(walls[1]) / sum(walls[2]):.2f} ({min(each):.2f} to {max(each):.2f})"
    return [*rows, ("speed-up of two processors", speed_up, "1.8")]


def _mean_of(measured: Sequence[float]) -> str:
    return f"{sum(measured) / len(measured):.1f} ({min(measured):.1f} to {max(measured):.1f})"


def weigh(folder: Path) -> list[tuple[str, str, str]]:
    """One head of 160 x 160 x 160, some turns: what is no method, and memory against its estimate, node by node.

    Beside the methods stand the start, discovery, nipype, figures, quality and the page, and then reading of images
    and writing of maps, too: all of the command but the nodes that run methods. The share of the processor's time
    counts whatever else runs; that of the wall clock, with one processor, holds waiting for the disk as well.
    """
    from qsmxt.phantom.dataset import write_bids

    write_bids(folder / "one", 1, voxel_size=(1.2, 1.2, 1.2), echo_times=(0.005, 0.011, 0.017), seed=0)
    whole: dict[str, list[float]] = {"cpu": [], "wall": []}
    beside: dict[str, list[float]] = {"cpu": [], "wall": []}
    handled: dict[str, list[float]] = {"cpu": [], "wall": []}
    nodes: dict[str, dict[str, str]] = {}
    for turn in range(TURNS):
        out = folder / f"outw{turn}"
        arguments = (folder / "one", out, "participant", "-w", folder / f"workw{turn}", "--nprocs", 1)
        wall, cpu, _ = run(*arguments, "--omp-nthreads", 1, "--resource-monitor")
        nodes = _taken_by_nodes(out)
        methods = [row for name, row in nodes.items() if not name.startswith(_BESIDE)]
        images = [row for name, row in nodes.items() if name.startswith(_IMAGES)]
        for clock, seconds in (("cpu", cpu), ("wall", wall)):
            whole[clock].append(seconds)
            beside[clock].append(seconds - sum(float(row[f"{clock}_s"]) for row in methods))
            handled[clock].append(sum(float(row[f"{clock}_s"]) for row in images))
    rows = []
    for clock, seconds in whole.items():
        alone = [b - h for b, h in zip(beside[clock], handled[clock], strict=True)]
        for what, part in (("", alone), (", images read and written", beside[clock])):
            each = [p / s for p, s in zip(part, seconds, strict=True)]
            share = f"{100 * sum(part) / sum(seconds):.0f} % ({100 * min(each):.0f} to {100 * max(each):.0f})"
            rows.append((f"160^3, BIDS, nipype and report{what}", f"{share} of {_mean_of(seconds)} s {clock}", "25 %"))
    out = folder / "outw"
    run(folder / "one", out, "participant", "-w", folder / "workw", "--nprocs", 2, "--resource-monitor")
    for place, taken in (("in the program", nodes), ("in a worker", _taken_by_nodes(out))):
        for name, row in taken.items():
            peak, estimate = float(row["peak_gb"]), float(row["estimated_gb"])
            if not name.startswith(_RESTING):
                told = f"{peak:.2f} GB, estimated {estimate:.2f}: {100 * (peak / estimate - 1):+.0f} %"
                rows.append((f"160^3, peak of {name} {place}", told, "within 20 %"))
    return rows


def _taken_by_nodes(out: Path) -> dict[str, dict[str, str]]:
    with (out / "logs" / "resources.tsv").open(encoding="utf-8") as stream:
        return {row["node"].partition(".")[2]: row for row in csv.DictReader(stream, delimiter="\t")}


def table(only: str = "") -> list[tuple[str, str, str]]:
    """All rows; ``only`` is ``plan``, ``start``, ``share`` or ``weigh``."""
    rows: list[tuple[str, str, str]] = []
    compileall.compile_dir(Path(__file__).parents[1] / "qsmxt", quiet=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if only in "plan":
            rows.append(plan_thousands(folder))
        if only in "start":
            rows.append(start_one(folder))
        if only in "share":
            rows += share(folder)
        if only in "weigh":
            rows += weigh(folder)
    return rows
