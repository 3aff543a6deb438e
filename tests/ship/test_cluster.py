"""Scripts of a job array, run with stand-ins for the scheduler and for qsmxt."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from qsmxt.cli import cluster
from qsmxt.cli.arguments import build_parser

#: Runs the tasks of an array one after the other, whatever becomes of them, then a dependent job; like afterany.
SBATCH = """#!/bin/bash
echo "$@" >> "$LOG/sbatch"
[ "$1" = --version ] && exit 0
export SLURM_CPUS_PER_TASK=4
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
    for name, text in (("sbatch", SBATCH), ("qsmxt", QSMXT)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def calls(study: Path) -> list[list[str]]:
    return [json.loads(line) for line in (study / "calls").read_text().splitlines()]


def test_a_failing_participant_stops_neither_the_others_nor_the_group(study: Path) -> None:
    code = cluster.main(["slurm", "bi ds", "out", "--submit", "--mem", "12G", "--cpus", "3", "--swi",
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
    asked = (study / "sbatch").read_text().splitlines()
    assert asked[1].startswith("--parsable --array=1-4 ")
    assert asked[2].startswith("--parsable --dependency=afterany:71 ")


def test_resources_setup_and_limits(study: Path) -> None:
    code = cluster.main(["slurm", "bi ds", "out", "--participant-label", "sub-03", "01", "--time", "01:00:00",
                         "--sbatch=--partition=long", "--setup", "module load apptainer", "--at-once", "10",
                         "--command", "apptainer run --cleanenv q.sif", "--scripts", "jobs"])  # fmt: skip
    assert code == 0
    assert (study / "jobs" / "subjects.txt").read_text() == "03\n01\n"
    script = (study / "jobs" / "participants.sh").read_text()
    directives = dict(line[8:].lstrip("-").split("=", 1) for line in script.splitlines() if line.startswith("#SBATCH"))
    log = str(study / "jobs" / "participant-%A_%a.log")
    assert directives == {"job-name": "qsmxt", "cpus-per-task": "4", "mem": "8G", "time": "01:00:00", "output": log,
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
    assert "09" in capsys.readouterr().err
    assert not (study / "qsmxt-jobs").exists()


def test_words_with_blanks_and_quotes_survive(study: Path) -> None:
    formula = "chi ~ age + C(sex) # it's"
    cluster.main(["slurm", "bi ds", "out", "--submit", "--model", formula])
    assert all(words[words.index("--model") + 1] == formula for words in calls(study))
    assert shlex.split((study / "qsmxt-jobs" / "group.sh").read_text().splitlines()[-1])[-1] == formula
