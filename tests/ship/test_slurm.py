"""A job array under a real SLURM that runs on the loopback address of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.heads import head, write_description, write_subject

DAEMONS = ("munged", "slurmctld", "slurmd")

CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=node Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no SLURM here, or nothing."""
    found = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in (*DAEMONS, "sbatch")}
    absent = [name for name, path in found.items() if path is None]
    if absent:
        return f"{', '.join(absent)} not found (Debian: apt-get install slurmctld slurmd slurm-client munge)"
    return "" if os.geteuid() == 0 else "the daemons need root"


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def free_ports(number: int) -> list[int]:
    """Ports of the loopback address that nobody uses."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment in which ``sbatch`` reaches a cluster of one node with two processors."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    controller, node = free_ports(2)
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(folder=folder, host=host, controller=controller, node=node)
    (folder / "slurm.conf").write_text(text)
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    own = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *own],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D", "-N", "node"],
    ]
    started = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as out:
                started.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
            time.sleep(0.5)
        wait(lambda: "idle" in answer(environment, "sinfo", "--noheader", "--format=%t"), 120, folder)
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=30)


def answer(environment: dict[str, str], *command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def wait(condition: object, seconds: float, folder: Path) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        logs = "".join(path.read_text(errors="replace")[-1500:] for path in folder.glob("*.out"))
        assert time.monotonic() < deadline, f"nothing happened in {seconds} s\n{logs}"
        time.sleep(0.5)


def test_one_failing_task_of_four_stops_neither_the_others_nor_the_group(slurm: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "bids"
    write_description(root)
    for number in range(1, 5):
        write_subject(root, str(number), head(), without=("MagneticFieldStrength",) if number == 3 else ())
    command = [
        sys.executable, "-m", "qsmxt.cli.cluster", "slurm", str(root), str(tmp_path / "out"), "--cpus", "1",
        "--mem", "1G", "--group-mem", "1G", "--time", "00:30:00", "--group-time", "00:30:00",
        "--command", f"{sys.executable} -m qsmxt", "--scripts", str(tmp_path / "jobs"), "--submit",
        "--skip-bids-validation", "--preset", "fast", "--inversion", "tkd", "--no-group-template",
        "--mask", "magnitude:rss,robust,erode:5", "--no-mask-human-brain",
    ]  # fmt: skip
    done = subprocess.run(command, env=slurm, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    array, group = (word.rpartition(" ")[2] for word in done.stdout.splitlines()[-1].split(","))
    wait(lambda: not answer(slurm, "squeue", "--noheader").strip(), 400, tmp_path / "jobs")
    states = {}
    for line in answer(slurm, "scontrol", "--oneliner", "show", "job").splitlines():
        facts = dict(word.split("=", 1) for word in line.split() if "=" in word)
        states[facts.get("ArrayTaskId", "group")] = (facts["JobState"], facts["ExitCode"])
    logs = {path.name: path.read_text() for path in (tmp_path / "jobs").glob("*.log")}
    assert states == {
        "1": ("COMPLETED", "0:0"), "2": ("COMPLETED", "0:0"), "3": ("FAILED", "65:0"), "4": ("COMPLETED", "0:0"),
        "group": ("COMPLETED", "0:0"),
    }, logs  # fmt: skip
    assert "MagneticFieldStrength" in logs[f"participant-{array}_3.log"]
    assert "sub-3" in logs[f"group-{group}.log"]
    maps = sorted(path.name for path in (tmp_path / "out").rglob("*_Chimap.nii.gz"))
    assert maps == [f"sub-{number}_Chimap.nii.gz" for number in (1, 2, 4)]
