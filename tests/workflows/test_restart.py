"""Killed at any moment, the same command finishes with the bytes of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.heads import contents, head, write_description, write_subject

MASK = ["--mask", "magnitude:rss,robust,erode:5", "--no-mask-human-brain"]

#: Runs that are killed before one is left alone.
KILLS = int(os.environ.get("QSMXT_KILLS", "3"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "bids"
    write_description(root)
    for seed in range(2):
        write_subject(root, str(seed + 1), head(seed))
    return root


def _start(dataset: Path, folder: Path, *more: str) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "qsmxt", str(dataset), str(folder / "out"), "participant", "-w", str(folder / "work"),
        "--skip-bids-validation", *MASK, *more,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _members(session: int) -> list[int]:
    """Processes of a session that are alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except (OSError, ValueError):
                continue
            if int(own) == session and state != "Z":
                found.append(int(entry.name))
    return found


def _stored(out: Path) -> dict[str, bytes]:
    return contents(out, ignore=("qsmxt.toml", "dataset_description"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers end with their parent on Linux only")
def test_killed_again_and_again_it_finishes_with_the_same_bytes(dataset, tmp_path):
    undisturbed = _start(dataset, tmp_path / "quiet", "--nprocs", "2")
    began = time.monotonic()
    output, errors = undisturbed.communicate(timeout=300)
    duration = time.monotonic() - began
    assert undisturbed.returncode == 0, errors
    expected = _stored(tmp_path / "quiet" / "out")
    moments = random.Random(1)
    for _ in range(KILLS):
        process = _start(dataset, tmp_path / "killed", "--nprocs", "2")
        time.sleep(moments.uniform(0.3, 0.95) * duration)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        deadline = time.monotonic() + 20
        while _members(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _members(process.pid), "workers outlived the program"
        for path, content in _visible(tmp_path / "killed" / "out").items():
            assert content == expected[path], f"{path} was left half-written"
    final = _start(dataset, tmp_path / "killed", "--nprocs", "2")
    output, errors = final.communicate(timeout=300)
    assert final.returncode == 0, errors
    assert "2 done, 0 skipped, 0 failed" in output
    assert _stored(tmp_path / "killed" / "out") == expected


def _visible(out: Path) -> dict[str, bytes]:
    """Maps that a user would open."""
    return {path: content for path, content in contents(out).items() if path.endswith(".nii.gz") and "/." not in path}


def test_two_runs_at_once_on_the_same_unit_do_not_mix(dataset, tmp_path):
    from qsmxt.bids.units import ProcessingUnit
    from qsmxt.workflows.participants import unit_lock

    unit = ProcessingUnit({"subject": "1"})
    with unit_lock(tmp_path / "work", unit):
        process = _start(dataset, tmp_path, "--nprocs", "1")
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    rows = {line.split()[0]: line for line in output.splitlines() if line.startswith("sub-")}
    assert "another run works on it" in rows["sub-1_MEGRE"] and "done" in rows["sub-2_MEGRE"]


def test_participants_may_share_an_output_folder(dataset, tmp_path):
    processes = [_start(dataset, tmp_path, "--nprocs", "1", "--participant-label", label) for label in ("1", "2")]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert (tmp_path / "out/sub-1.html").exists() and (tmp_path / "out/sub-2.html").exists()
    leftovers = [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".tmp")]
    assert not leftovers
