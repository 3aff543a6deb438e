"""``qsmxt-cluster slurm|pbs|sge BIDS OUT``: scripts that process a dataset on a cluster, one participant per job.

Options that are not of this command go to ``qsmxt``::

    qsmxt-cluster slurm bids out --submit --swi --preset fast

Written are, into one folder, ``tasks.txt`` (one label a line, or label and session), ``participants.sh`` (a job array
with a task for each line), ``group.sh`` (the group level) and ``submit.sh``, which hands over both. The group job
starts after *any* end of the array; the group level names who is missing.
"""

from __future__ import annotations

import argparse
import logging
import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from qsmxt import __version__
from qsmxt.cli.arguments import Options, parse
from qsmxt.cli.options import Formatter
from qsmxt.cli.run import resolved, segmentation_planner, select, validate_input
from qsmxt.cli.schedulers import SCHEDULERS, Job, Scheduler, check_memory, check_time
from qsmxt.errors import MissingInputError, MissingProgramError, QSMxTError

#: Memory and time of a participant's job where the dataset cannot be looked at.
UNKNOWN_MEM, UNKNOWN_TIME = "8G", "04:00:00"

#: Asked for beyond the estimates: times the memory and time, and GB for the program that waits for its workers.
MEMORY_MARGIN, TIME_MARGIN, PROGRAM_GB = 1.3, 4.0, 0.5

_SCRATCH = """\
work=$(mktemp -d "${TMPDIR:-/tmp}/qsmxt-XXXXXX")
trap 'rm -rf "$work"' EXIT
"""

_PARTICIPANT = """\
task=$(sed -n "${{{task}}}p" {tasks})
[ -n "$task" ] || {{ echo "no line ${task} in "{tasks} >&2; exit 66; }}
read -r label session <<< "$task"
{command} {bids} {out} participant --participant-label "$label" ${{session:+--session-label "$session"}} \\
    --work-dir "$work" --nprocs {cpus} --mem {mem}{options}
"""

_GROUP = """\
{command} {bids} {out} group --work-dir "$work" --nprocs {cpus} --mem {mem}{options}
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``qsmxt-cluster``."""
    parser = argparse.ArgumentParser(
        prog="qsmxt-cluster",
        description="Write the scripts of a job array: one participant per task, then the group level.",
        epilog="All other options are handed to qsmxt.",
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"qsmxt {__version__}")
    add("scheduler", choices=tuple(SCHEDULERS), help="what the cluster runs")
    add("bids_dir", type=Path, help="root of the BIDS dataset")
    add("output_dir", type=Path, help="folder of the derivatives")
    add("--participant-label", nargs="+", metavar="LABEL", help="only these subjects (all)")
    add("--by-session", action="store_true", help="one session per task instead of one participant")
    add("--scripts", type=Path, default=Path("qsmxt-jobs"), metavar="DIR", help="./qsmxt-jobs")
    add("--command", default="qsmxt", help='such as "apptainer run --cleanenv qsmxt.sif" (qsmxt)')
    add("-w", "--work-dir", type=Path, metavar="DIR", help="kept, so that jobs submitted again continue (scratch)")
    add("--setup", action="append", default=[], metavar="LINE", help="shell line first, repeatable")
    add(
        "--directive", "--sbatch", action="append", default=[], metavar="OPTION",
        help="line for the scheduler in both scripts, such as --directive=--partition=long; repeatable",
    )  # fmt: skip
    add("--cpus", type=int, default=4, metavar="N", help="processors of a job (4)")
    add("--mem", metavar="SIZE", help="memory of a participant's job (estimated from the dataset)")
    add("--time", metavar="H:M:S", help="time of a participant's job (estimated from the dataset)")
    add("--group-mem", default="16G", metavar="SIZE", help="memory of the group job (16G)")
    add("--group-time", default="24:00:00", metavar="H:M:S", help="time of the group job (24:00:00)")
    add("--at-once", type=int, metavar="N", help="most tasks at the same time (no limit)")
    add("--submit", action="store_true", help="hand the jobs over as well")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options, handed_on = build_parser().parse_known_args(arguments)
    try:
        subjects = find_subjects(options.bids_dir, options.participant_label)
        understood = check_handed_on(options, subjects, handed_on)
        validate_input(understood)
        if not understood.skip_validation:
            handed_on.append("--skip-bids-validation")
        fill_in_resources(options, understood)
        tasks = find_tasks(options.bids_dir, subjects) if options.by_session else list(subjects)
        submit = write_scripts(options, tasks, handed_on)
        print(
            f"{len(tasks)} tasks of {options.cpus} processors, {options.mem} and {options.time}; "
            f"to hand over: bash {shlex.quote(str(submit))}"
        )
        return hand_over(SCHEDULERS[options.scheduler], submit) if options.submit else 0
    except QSMxTError as error:
        print(f"qsmxt-cluster: {error}", file=sys.stderr)
        return error.exit_code


def find_subjects(bids_dir: Path, wanted: Sequence[str] | None) -> list[str]:
    """Labels of the subjects, sorted; those wanted must be there."""
    found = sorted(path.name[4:] for path in bids_dir.glob("sub-*") if path.is_dir())
    if not found:
        raise MissingInputError(f"bids_dir: expected a dataset with folders sub-*, found none in {bids_dir}")
    if wanted is None:
        return found
    labels = list(dict.fromkeys(label.removeprefix("sub-") for label in wanted))
    if missing := sorted(set(labels) - set(found)):
        raise MissingInputError(f"--participant-label: {bids_dir} holds no {', '.join(missing)}")
    return labels


def find_tasks(bids_dir: Path, subjects: Sequence[str]) -> list[str]:
    """Label and session of every session; the label alone where a subject has none."""
    tasks = []
    for label in subjects:
        sessions = sorted(path.name[4:] for path in (bids_dir / f"sub-{label}").glob("ses-*") if path.is_dir())
        tasks += [f"{label} {session}" for session in sessions] or [label]
    return tasks


def check_handed_on(options: argparse.Namespace, subjects: Sequence[str], handed_on: Sequence[str]) -> Options:
    """Refuse now what every job would refuse (exit code 2 or 64)."""
    for name in ("mem", "group_mem"):
        if getattr(options, name) is not None:
            check_memory(f"--{name.replace('_', '-')}", getattr(options, name))
    for name in ("time", "group_time"):
        if getattr(options, name) is not None:
            check_time(f"--{name.replace('_', '-')}", getattr(options, name))
    chosen = ["--participant-label", *subjects] if options.participant_label else []
    return parse([str(options.bids_dir), str(options.output_dir), "participant", *chosen, *handed_on])


def fill_in_resources(options: argparse.Namespace, understood: Options) -> None:
    """Memory and time that were not given, from the estimates of the dearest participant."""
    if options.mem is not None and options.time is not None:
        return
    try:
        mem, time = estimate_job(understood)
    except QSMxTError as error:
        mem, time = UNKNOWN_MEM, UNKNOWN_TIME
        print(f"qsmxt-cluster: {error}\nmemory and time cannot be estimated: {mem}, {time}", file=sys.stderr)
    options.mem, options.time = options.mem or mem, options.time or time


def estimate_job(understood: Options) -> tuple[str, str]:
    """Memory and time that the dearest participant needs, with a margin, such as ``("5G", "00:30:00")``."""
    from qsmxt import config
    from qsmxt.workflows.dry_run import peak_memory
    from qsmxt.workflows.participants import expected_seconds, prepare

    logging.getLogger("qsmxt").setLevel(logging.ERROR)
    settings = config.load(understood.preset, understood.config_file, understood.flags)
    planner = segmentation_planner(understood, settings)
    prepared, _ = prepare(select(understood, settings).units, settings, planner, resolved(understood.derivatives))
    if not prepared:
        raise MissingInputError(f"{understood.bids_dir}: expected acquisitions that can be processed, found none")
    seconds: dict[str, float] = {}
    for item in prepared:
        seconds[item.unit.subject] = seconds.get(item.unit.subject, 0.0) + expected_seconds(item)
    memory = MEMORY_MARGIN * max(peak_memory(item) for item in prepared) + PROGRAM_GB
    half_hours = math.ceil((300 + TIME_MARGIN * max(seconds.values())) / 1800)
    return f"{math.ceil(memory)}G", f"{half_hours // 2:02d}:{half_hours % 2 * 30:02d}:00"


def write_scripts(options: argparse.Namespace, tasks: Sequence[str], handed_on: Sequence[str]) -> Path:
    """Write all files; returns the one that hands over."""
    scheduler = SCHEDULERS[options.scheduler]
    folder = options.scripts.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tasks.txt").write_text("".join(f"{task}\n" for task in tasks), encoding="utf-8")
    words = {
        "cpus": options.cpus,
        "command": options.command,
        "bids": shlex.quote(str(options.bids_dir.absolute())),
        "out": shlex.quote(str(options.output_dir.absolute())),
        "tasks": shlex.quote(str(folder / "tasks.txt")),
        "task": scheduler.task,
        "options": "".join(f" {shlex.quote(word)}" for word in handed_on),
    }
    work = f"work={shlex.quote(str(options.work_dir.absolute()))}\n" if options.work_dir else _SCRATCH
    head = "set -euo pipefail\n" + "".join(f"{line}\n" for line in options.setup) + work
    array = Job("qsmxt", options.cpus, options.mem, options.time, folder / "participant", array=True)
    group = Job("qsmxt-group", options.cpus, options.group_mem, options.group_time, folder / "group")
    files = {}
    for name, job, body in (("participants", array, _PARTICIPANT), ("group", group, _GROUP)):
        lines = [f"{scheduler.prefix} {line}\n" for line in (*scheduler.directives(job), *options.directive)]
        text = "#!/bin/bash\n" + "".join(lines) + head + body.format(**words, mem=job.mem)
        files[name] = shlex.quote(str(_write(folder / f"{name}.sh", text)))
    limit = scheduler.limit.format(number=options.at_once) if options.at_once else ""
    return _write(folder / "submit.sh", scheduler.submit.format(count=len(tasks), limit=limit, **files))


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def hand_over(scheduler: Scheduler, submit: Path) -> int:
    """Run ``submit.sh``; its exit code."""
    if shutil.which(scheduler.program) is None:
        raise MissingProgramError(
            f"{scheduler.program}: expected on the PATH, found nothing; run it on a login node, or hand over later"
        )
    return subprocess.run(["bash", str(submit)], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
