"""Whatever stops a run, the same command finishes with the bytes of an undisturbed run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import faults
from tests.heads import head, write_description, write_subject

MASK = ["--mask", "magnitude:rss,robust,erode:5", "--no-mask-human-brain"]
QUICK = ["--preset", "fast", "--inversion", "tkd", *MASK]

#: What happens before a run is left alone; ``python -m benchmarks faults`` does so much more often.
HAPPENS = ("killed", "disk full", "memory limit", "read-only output")


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
        "--skip-bids-validation", *QUICK, *more,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers end with their parent on Linux only")
def test_disturbed_again_and_again_it_finishes_with_the_same_bytes(dataset, tmp_path):
    options = [*QUICK, "--nprocs", "2"]
    with faults.place(dataset, tmp_path / "quiet", options) as quiet:
        code, said = quiet.finish()
        assert code == 0, said
        expected, nodes = quiet.contents(), quiet.finished_nodes()
    moments = random.Random(int(os.environ.get("QSMXT_FAULT_SEED", "1")))
    with faults.place(dataset, tmp_path / "disturbed", options) as disturbed:
        known = {**faults.FAULTS, **(faults.MOUNT_FAULTS if disturbed.mounted else {})}
        for name in HAPPENS:
            faults.inject(disturbed, name if name in known else "file limit", moments, nodes)
            faults.check_visible(disturbed, expected)
        code, said = disturbed.finish()
        assert code == 0, said
        assert "2 done, 0 skipped, 0 failed" in said
        assert disturbed.contents() == expected


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
