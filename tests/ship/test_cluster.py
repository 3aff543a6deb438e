"""Scripts of a job array, run with stand-ins for the scheduler and for qsmxt."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from qsmxt import config
from qsmxt.bids.queries import find_units
from qsmxt.cli import cluster
from qsmxt.cli.arguments import build_parser
from qsmxt.workflows.dry_run import peak_memory
from qsmxt.workflows.participants import prepare
from tests.bids.datasets import Dataset

SKIP = ["--skip-bids-validation"]

#: Runs the tasks of an array one after the other, whatever becomes of them, then a dependent job; like afterany.
SBATCH = """#!/bin/bash
echo "$@" >> "$LOG/submitted"
if [[ "$2" == --array=1-* ]]; then
    last=${2#--array=1-}; last=${last%%%*}
    for SLURM_ARRAY_TASK_ID in $(seq "$last"); do
        export SLURM_ARRAY_TASK_ID; bash "${@: -1}" >/dev/null 2>&1 || true
    done
    echo "71;cluster"
else
    bash "${@: -1}" >/dev/null 2>&1; echo 72
fi
"""

#: The same for PBS and SGE: the variable of the task and the answer are in the environment.
QSUB = """#!/bin/bash
echo "$@" >> "$LOG/submitted"
for word in "$@"; do
    [[ "$word" == PBS_ARRAY_INDEX=* ]] && { export "$word"; first=1; last=1; }
    [[ "$word" =~ ^1-[0-9]+ ]] && { first=1; last=${word#1-}; last=${last%%%*}; }
done
if [ -n "${first:-}" ]; then
    for task in $(seq "$last"); do
        env "$TASK=$task" bash "${@: -1}" >/dev/null 2>&1 || true
    done
    echo "$ANSWER"
else
    bash "${@: -1}" >/dev/null 2>&1; echo 72
fi
"""

#: Notes its words; fails for subject 02.
QSMXT = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["LOG"] + "/calls", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + chr(10))
sys.exit("02" in sys.argv)
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for label in ("01", "02", "03", "04"):
        (tmp_path / "bi ds" / f"sub-{label}").mkdir(parents=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("sbatch", SBATCH), ("qsub", QSUB), ("qsmxt", QSMXT)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def calls(study: Path) -> list[list[str]]:
    return [json.loads(line) for line in (study / "calls").read_text().splitlines()]


def test_a_failing_participant_stops_neither_the_others_nor_the_group(study: Path) -> None:
    code = cluster.main(["slurm", "bi ds", "out", "--submit", "--mem", "12G", "--cpus", "3", "--swi", *SKIP,
                         "--mask", "magnitude:first,bet:0.4"])  # fmt: skip
    assert code == 0
    parsed = [build_parser().parse_intermixed_args(words) for words in calls(study)]
    assert [names.participant_label for names in parsed] == [["01"], ["02"], ["03"], ["04"], None]
    assert [names.analysis_level for names in parsed] == [["participant"]] * 4 + [["group"]]
    assert {names.bids_dir for names in parsed} == {study / "bi ds"}
    assert [names.mem for names in parsed] == [12.0] * 4 + [16.0]
    for names in parsed:
        assert names.flags == {
            "outputs": {"swi": True}, "masking": {"sections": ("magnitude:first,bet:0.4",)},
            "execution": {"nprocs": 3},
        }  # fmt: skip
        assert not names.work_dir.exists(), "work folders are removed"
    asked = (study / "submitted").read_text().splitlines()
    assert asked[0].startswith("--parsable --array=1-4 ")
    assert asked[1].startswith("--parsable --dependency=afterany:71 ")


@pytest.mark.parametrize(
    ("scheduler", "task", "answer", "array", "held"),
    [
        ("pbs", "PBS_ARRAY_INDEX", "71[].host", "-J 1-4%2 ", "-W depend=afterany:71[].host "),
        ("sge", "SGE_TASK_ID", "71.1-4:1", "-terse -t 1-4 -tc 2 ", "-terse -hold_jid 71 "),
    ],
)
def test_other_schedulers_run_every_task_and_then_the_group(
    study: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str, task: str, answer: str, array: str, held: str
) -> None:
    monkeypatch.setenv("TASK", task)
    monkeypatch.setenv("ANSWER", answer)
    assert cluster.main([scheduler, "bi ds", "out", "--submit", "--at-once", "2", "--mem", "2500M", *SKIP]) == 0
    parsed = [build_parser().parse_intermixed_args(words) for words in calls(study)]
    assert [names.participant_label for names in parsed] == [["01"], ["02"], ["03"], ["04"], None]
    assert [names.mem for names in parsed] == [2.5] * 4 + [16.0]
    asked = (study / "submitted").read_text().splitlines()
    assert asked[0].startswith(array) and asked[1].startswith(held)
    script = (study / "qsmxt-jobs" / "participants.sh").read_text()
    wanted = {"pbs": "#PBS -l select=1:ncpus=4:mem=2500mb\n", "sge": "#$ -l h_vmem=625M\n"}[scheduler]
    assert wanted in script
    for path in (study / "qsmxt-jobs").glob("*.sh"):
        subprocess.run(["bash", "-n", str(path)], check=True)


def test_one_participant_is_a_job_of_its_own_where_arrays_need_two(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASK", "PBS_ARRAY_INDEX")
    monkeypatch.setenv("ANSWER", "71.host")
    assert cluster.main(["pbs", "bi ds", "out", "--submit", "--participant-label", "03", *SKIP]) == 0
    assert (study / "submitted").read_text().startswith("-v PBS_ARRAY_INDEX=1 ")
    assert [words[3:5] for words in calls(study)[:1]] == [["--participant-label", "03"]]


def test_sessions_are_tasks_of_their_own(study: Path) -> None:
    for session in ("a", "b"):
        (study / "bi ds" / "sub-03" / f"ses-{session}").mkdir()
    code = cluster.main(["slurm", "bi ds", "out", "--submit", "--by-session", "-w", "kept", *SKIP])
    assert code == 0
    parsed = [build_parser().parse_intermixed_args(words) for words in calls(study)]
    assert [(names.participant_label, names.session_label) for names in parsed] == [
        (["01"], None), (["02"], None), (["03"], ["a"]), (["03"], ["b"]), (["04"], None), (None, None),
    ]  # fmt: skip
    assert {names.work_dir for names in parsed} == {study / "kept"}


def test_resources_come_from_the_estimates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small, large = Dataset(tmp_path / "small"), Dataset(tmp_path / "large")
    small.gradient_echo("sub-1", shape=(8, 8, 8))
    for dataset in (small, large):
        dataset.gradient_echo("sub-2", shape=(160, 200, 160) if dataset is large else (8, 8, 8))
    asked = {}
    for name in ("small", "large"):
        assert cluster.main(["slurm", name, "out", "--scripts", name + "-jobs", *SKIP]) == 0
        script = (tmp_path / f"{name}-jobs" / "participants.sh").read_text()
        directives = dict(line[10:].split("=", 1) for line in script.splitlines() if line.startswith("#SBATCH --"))
        asked[name] = (int(directives["mem"].rstrip("G")), directives["time"])
        assert f"--mem {directives['mem']}" in script
    assert asked["small"] == (1, "00:30:00")
    plan = prepare(find_units(tmp_path / "large").units, config.load())[0]
    assert asked["large"][0] == math.ceil(1.3 * max(peak_memory(item) for item in plan) + 0.5)
    assert asked["large"] > asked["small"]


def test_resources_setup_and_limits(study: Path) -> None:
    code = cluster.main(["slurm", "bi ds", "out", "--participant-label", "sub-03", "01", "--time", "01:00:00",
                         "--directive=--partition=long", "--mem", "8G", "--setup", "module load apptainer",
                         "--at-once", "10",
                         "--command", "apptainer run --cleanenv q.sif", "--scripts", "jobs", *SKIP])  # fmt: skip
    assert code == 0
    assert (study / "jobs" / "tasks.txt").read_text() == "03\n01\n"
    script = (study / "jobs" / "participants.sh").read_text()
    directives = dict(line[8:].lstrip("-").split("=", 1) for line in script.splitlines() if line.startswith("#SBATCH"))
    log = str(study / "jobs" / "participant-%A_%a.log")
    assert directives == {"job-name": "qsmxt", "nodes": "1", "ntasks": "1", "cpus-per-task": "4",
                          "mem": "8G", "time": "01:00:00", "output": log,
                          "partition": "long"}  # fmt: skip
    assert script.index("module load apptainer") < script.index("apptainer run --cleanenv q.sif")
    assert "--array=1-2%10 " in (study / "jobs" / "submit.sh").read_text()
    for path in (study / "jobs").glob("*.sh"):
        subprocess.run(["bash", "-n", str(path)], check=True)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", str(path)], check=True)


def test_what_every_job_would_refuse_is_refused_at_once(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        cluster.main(["slurm", "bi ds", "out", "--inversion", "magic"])
    assert refused.value.code == 2
    assert cluster.main(["slurm", "bi ds", "out", "--participant-label", "09"]) == 66
    assert cluster.main(["slurm", "nothing", "out"]) == 66
    assert cluster.main(["slurm", "bi ds", "out", "--mem", "lots"]) == 64
    assert cluster.main(["slurm", "bi ds", "out", "--time", "soon"]) == 64
    assert "09" in capsys.readouterr().err
    assert not (study / "qsmxt-jobs").exists()


def test_words_with_blanks_and_quotes_survive(study: Path) -> None:
    formula = "chi ~ age + C(sex) # it's"
    cluster.main(["slurm", "bi ds", "out", "--submit", "--model", formula, *SKIP])
    assert all(words[words.index("--model") + 1] == formula for words in calls(study))
    assert shlex.split((study / "qsmxt-jobs" / "group.sh").read_text().splitlines()[-1])[-2] == formula
