"""Faults injected into runs: whatever stops a run, the same command then finishes with the bytes of an undisturbed one.

A run is followed until a random number of its nodes is finished, then something happens to it. Several faults hit the
same folders one after the other before a run is left alone. Where this process may mount file systems, output and work
folder lie on small ones, so that a full disk and a read-only output are real; elsewhere those two faults are left out.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Size of the file systems while nothing is wrong, and time until a run is given up, s.
ROOM, PATIENCE = "600m", 900

#: What differs between runs by nature: when they ran, and what an earlier run told of its end.
BY_NATURE = ("qsmxt.toml", "desc-run", "dataset_description", "/crash-", "resources.tsv")
#: Part of a page that tells what the steps took.
TAKEN = re.compile(b"<details><summary>Time and memory</summary>.*?</details>", re.DOTALL)


@dataclass
class Place:
    """Folders of runs with the same command, and how the command is started."""

    dataset: Path
    folder: Path
    options: Sequence[str]
    mounted: bool = False
    log: list[str] = field(default_factory=list)

    @property
    def out(self) -> Path:
        """Output dataset."""
        return self.folder / "out"

    @property
    def work(self) -> Path:
        """Intermediate results."""
        return self.folder / "work"

    def start(self) -> subprocess.Popen[str]:
        """The command, running in a session of its own."""
        command = [
            sys.executable, "-m", "qsmxt", str(self.dataset), str(self.out), "participant", "-w", str(self.work),
            "--skip-bids-validation", *self.options,
        ]  # fmt: skip
        with (self.folder / "log").open("w", encoding="utf-8") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)

    def finished_nodes(self) -> int:
        """Nodes whose results lie in the work folder."""
        while True:
            with contextlib.suppress(FileNotFoundError):  # a folder may vanish while it is listed
                return sum(1 for _ in self.work.glob("qsmxt/*/*/result_*.pklz"))

    def clear(self) -> None:
        """Begin afresh, so that the next fault has something to disturb."""
        for folder in (self.out, self.work):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def finish(self) -> tuple[int, str]:
        """Run undisturbed; exit code and what was said."""
        process = self.start()
        return process.wait(timeout=PATIENCE), (self.folder / "log").read_text(encoding="utf-8")

    def contents(self) -> dict[str, bytes]:
        """Bytes of all files of the output but those that differ by nature."""
        files = (path for path in sorted(self.out.rglob("*")) if path.is_file())
        named = ((path.relative_to(self.out).as_posix(), path) for path in files)
        kept = ((name, path) for name, path in named if not any(part in f"/{name}" for part in BY_NATURE))
        return {name: TAKEN.sub(b"", path.read_bytes()) for name, path in kept}


def kill(place: Place, process: subprocess.Popen[str], moments: random.Random) -> None:
    """The program is killed; its workers must notice."""
    os.kill(process.pid, signal.SIGKILL)


def lose_node(place: Place, process: subprocess.Popen[str], moments: random.Random) -> None:
    """Program and workers vanish at once, as with the machine."""
    os.killpg(process.pid, signal.SIGKILL)


def kill_worker(place: Place, process: subprocess.Popen[str], moments: random.Random) -> None:
    """One worker is killed, as by a system without memory."""
    workers = [pid for pid in members(process.pid) if pid != process.pid]
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(moments.choice(sorted(workers)), signal.SIGKILL)


def limit_memory(place: Place, process: subprocess.Popen[str], moments: random.Random) -> None:
    """No process gets more than a few megabytes beyond what it has, once workers have started.

    Not before: OpenBLAS, which numpy and scipy load, asks without end for the memory that it is refused.
    """
    while process.poll() is None and not has_workers(process.pid):
        time.sleep(0.01)
    for pid in members(process.pid):
        with contextlib.suppress(OSError, ValueError):
            pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[0])
            most = pages * resource.getpagesize() + moments.randrange(1 << 22)
            resource.prlimit(pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def limit_files(place: Place, process: subprocess.Popen[str], moments: random.Random) -> None:
    """No file may grow beyond some kilobytes, as with an exhausted quota."""
    for pid in members(process.pid):
        with contextlib.suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (moments.randrange(1 << 17), resource.RLIM_INFINITY))


def fill_disk(place: Place, process: subprocess.Popen[str], moments: random.Random) -> None:
    """The disk of the output, or of the work folder, has a few hundred kilobytes left."""
    folder = moments.choice((place.out, place.work))
    usage = os.statvfs(folder)
    used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
    remount(folder, f"size={(used + moments.randrange(1 << 18)) // 1024 + 4}k")


def forbid_writing(place: Place, process: subprocess.Popen[str], moments: random.Random) -> None:
    """The output becomes read-only."""
    for _ in range(200):
        if remount(place.out, "ro"):
            return
        time.sleep(0.01)


#: Faults by name; those of the second table need the right to mount.
FAULTS = {
    "killed": kill, "node lost": lose_node, "worker killed": kill_worker, "memory limit": limit_memory,
    "file limit": limit_files,
}  # fmt: skip
MOUNT_FAULTS = {"disk full": fill_disk, "read-only output": forbid_writing}


def members(session: int) -> list[int]:
    """Processes of a session that are alive."""
    return list(parents(session))


def parents(session: int) -> dict[int, int]:
    """Processes of a session that are alive, and their parents."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                state, parent, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(own) == session and state != "Z":
                    found[int(entry.name)] = int(parent)
    return found


def has_workers(program: int) -> bool:
    """Whether there are workers: copies of the fork server, which descends from the program and starts others as well.

    What it starts is a copy for a moment, too.
    """
    found = _copies(program)
    time.sleep(0.02)
    return bool(found & _copies(program))


def _copies(program: int) -> set[int]:
    found = parents(program)
    descended = {(process, parent) for process, parent in found.items() if parent in found and parent != program}
    return {process for process, parent in descended if _command(process) == _command(parent) != b""}


def _command(process: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def remount(folder: Path, option: str) -> bool:
    """Change a mounted file system; whether that worked."""
    command = ["mount", "-o", f"remount,{option}", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def place(dataset: Path, folder: Path, options: Sequence[str]) -> Iterator[Place]:
    """Folders for runs, on file systems of their own where that is allowed."""
    made = Place(dataset, folder, options)
    for path in (made.out, made.work):
        path.mkdir(parents=True)
    mounted: list[Path] = []
    try:
        for path in (made.out, made.work):
            command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(path)]
            with contextlib.suppress(OSError):
                if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                    mounted.append(path)
        made.mounted = len(mounted) == 2
        yield made
    finally:
        for path in mounted:
            subprocess.run(["umount", "-l", str(path)], check=False)


def inject(made: Place, name: str, moments: random.Random, nodes: int) -> str:
    """Start a run, let fault ``name`` happen once some more of its ``nodes`` are finished, wait for its end.

    Returns what happened, in words; raises :class:`AssertionError` if workers outlive the program or the run hangs.
    """
    before = made.finished_nodes()
    target = moments.randint(before, max(before, nodes - 1))
    process = made.start()
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and (made.finished_nodes() < target or not made.work.exists()):
        assert time.monotonic() < deadline, f"{name}: the run does not advance"
        time.sleep(0.02)
    time.sleep(moments.uniform(0, 0.2))
    hit = process.poll() is None
    if hit:
        (FAULTS | MOUNT_FAULTS)[name](made, process, moments)
    code = process.wait(timeout=PATIENCE)
    deadline = time.monotonic() + 60
    while members(process.pid):
        assert time.monotonic() < deadline, f"{name}: workers outlived the program"
        time.sleep(0.05)
    if made.mounted:
        for path in (made.out, made.work):
            remount(path, f"rw,size={ROOM}")
    reached = made.finished_nodes()
    return f"{name} after {target} nodes{'' if hit else ' (run was over)'}: code {code}, {reached} nodes"


def check_visible(made: Place, expected: dict[str, bytes]) -> None:
    """Every file of a participant that a user would open is whole; tables of all list those that are done."""
    for name, content in made.contents().items():
        if "/." not in f"/{name}" and name.startswith("sub-") and name.endswith((".nii.gz", ".tsv")):
            assert content == expected.get(name, content), f"{name} was left half-written"


def table(cases: int = 5, seed: int = 1, cache: Path | None = None) -> list[tuple[str, str]]:
    """``cases`` places with all faults in random order; what happened, and whether the last run gave the same bytes."""
    import tempfile

    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(dir=cache) as name:
        folder = Path(name)
        dataset, options = write_case(folder / "bids")
        with place(dataset, folder / "quiet", [*options, "--nprocs", "2"]) as quiet:
            code, said = quiet.finish()
            assert code == 0, said
            expected, nodes = quiet.contents(), quiet.finished_nodes()
        for case in range(cases):
            moments = random.Random(f"{seed} {case}")
            with place(dataset, folder / f"case{case}", [*options, "--nprocs", "2"]) as made:
                names = [*FAULTS, *(MOUNT_FAULTS if made.mounted else {})]
                moments.shuffle(names)
                for fault in names:
                    if made.finished_nodes() >= nodes:
                        made.clear()
                    rows.append((f"{case + 1}", inject(made, fault, moments, nodes)))
                    print(*rows[-1], flush=True)
                    check_visible(made, expected)
                code, said = made.finish()
                same = code == 0 and made.contents() == expected
                rows.append((f"{case + 1}", f"left alone: code {code}, {'same' if same else 'OTHER'} bytes"))
                print(*rows[-1], flush=True)
                if not same:
                    print(said, sorted(set(expected) ^ set(made.contents())))
    return rows


def write_case(root: Path) -> tuple[Path, list[str]]:
    """Two small heads, and options that are quick and right for them."""
    from qsmxt.phantom.dataset import write_bids

    write_bids(root, 2, voxel_size=(5.0, 5.0, 5.0), echo_times=(0.005, 0.011, 0.017), seed=0)
    mask = ["--mask", "magnitude:rss,robust,erode:5", "--no-mask-human-brain"]
    return root, ["--preset", "fast", "--inversion", "tkd", *mask]
