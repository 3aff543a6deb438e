"""``qsmxt-cluster slurm BIDS OUT``: scripts that process a dataset on a cluster, one participant per job.

Options that are not of this command go to ``qsmxt``::

    qsmxt-cluster slurm bids out --mem 12G --submit --swi --preset fast

Written are, into one folder, ``subjects.txt`` (one label a line), ``participants.sh`` (a job array with a task for each
line), ``group.sh`` (the group level) and ``submit.sh``, which hands over both. The group job starts after *any* end of
the array, because one failed participant would otherwise hold it back for ever; the group level names who is missing.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from qsmxt import __version__
from qsmxt.cli.arguments import Options, parse
from qsmxt.cli.options import Formatter
from qsmxt.errors import MissingInputError, MissingProgramError, ParameterError, QSMxTError

_HEAD = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={mem}
#SBATCH --time={time}
#SBATCH --output={log}
{extra}set -euo pipefail
{setup}work=$(mktemp -d "${{TMPDIR:-/tmp}}/qsmxt-XXXXXX")
trap 'rm -rf "$work"' EXIT
"""

_PARTICIPANT = """\
label=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {subjects})
[ -n "$label" ] || {{ echo "no line $SLURM_ARRAY_TASK_ID in "{subjects} >&2; exit 66; }}
{command} {bids} {out} participant --participant-label "$label" --work-dir "$work" \\
    --nprocs {cpus} --mem {mem}{options}
"""

_GROUP = """\
{command} {bids} {out} group --work-dir "$work" --nprocs {cpus} --mem {mem}{options}
"""

_SUBMIT = """\
#!/bin/bash
set -euo pipefail
participants=$(sbatch --parsable --array=1-{count}{limit} {participants})
group=$(sbatch --parsable --dependency="afterany:${{participants%%;*}}" {group})
echo "participants: ${{participants%%;*}}, group: ${{group%%;*}}"
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
    parser.add_argument("--version", action="version", version=f"qsmxt {__version__}")
    parser.add_argument("scheduler", choices=("slurm",), help="what the cluster runs")
    parser.add_argument("bids_dir", type=Path, help="root of the BIDS dataset")
    parser.add_argument("output_dir", type=Path, help="folder of the derivatives")
    parser.add_argument("--participant-label", nargs="+", metavar="LABEL", help="only these subjects (all)")
    parser.add_argument("--scripts", type=Path, default=Path("qsmxt-jobs"), metavar="DIR", help="./qsmxt-jobs")
    parser.add_argument("--command", default="qsmxt", help='such as "apptainer run --cleanenv qsmxt.sif" (qsmxt)')
    parser.add_argument("--setup", action="append", default=[], metavar="LINE", help="shell line first, repeatable")
    parser.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="#SBATCH line, repeatable")
    parser.add_argument("--cpus", type=int, default=4, metavar="N", help="processors of a job (4)")
    parser.add_argument("--mem", default="8G", metavar="SIZE", help="memory of a participant's job (8G)")
    parser.add_argument("--time", default="04:00:00", help="time of a participant's job (04:00:00)")
    parser.add_argument("--group-mem", default="16G", metavar="SIZE", help="memory of the group job (16G)")
    parser.add_argument("--group-time", default="24:00:00", metavar="TIME", help="time of the group job (24:00:00)")
    parser.add_argument("--at-once", type=int, metavar="N", help="most tasks at the same time (no limit)")
    parser.add_argument("--submit", action="store_true", help="hand the jobs over as well")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options, handed_on = build_parser().parse_known_args(arguments)
    try:
        subjects = find_subjects(options.bids_dir, options.participant_label)
        check_handed_on(options, handed_on)
        submit = write_scripts(options, subjects, handed_on)
        print(f"{len(subjects)} participants; to hand over: bash {shlex.quote(str(submit))}")
        return hand_over(submit) if options.submit else 0
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


def check_handed_on(options: argparse.Namespace, handed_on: Sequence[str]) -> Options:
    """Refuse now what every job would refuse (exit code 2)."""
    for name in ("mem", "group_mem"):
        if not re.fullmatch(r"\d+[KMGT]", getattr(options, name)):
            flag = name.replace("_", "-")
            raise ParameterError(
                f"--{flag}: expected a whole number with unit such as 8G, found {getattr(options, name)}"
            )
    return parse([str(options.bids_dir), str(options.output_dir), "participant", *handed_on])


def write_scripts(options: argparse.Namespace, subjects: Sequence[str], handed_on: Sequence[str]) -> Path:
    """Write all files; returns the one that hands over."""
    folder = options.scripts.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "subjects.txt").write_text("".join(f"{label}\n" for label in subjects), encoding="utf-8")
    common = {
        "cpus": options.cpus,
        "command": options.command,
        "bids": shlex.quote(str(options.bids_dir.absolute())),
        "out": shlex.quote(str(options.output_dir.absolute())),
        "subjects": shlex.quote(str(folder / "subjects.txt")),
        "options": "".join(f" {shlex.quote(word)}" for word in handed_on),
        "extra": "".join(f"#SBATCH {line}\n" for line in options.sbatch),
        "setup": "".join(f"{line}\n" for line in options.setup),
    }
    array_log, group_log = folder / "participant-%A_%a.log", folder / "group-%j.log"
    participant = {"name": "qsmxt", "mem": options.mem, "time": options.time, "log": array_log}
    group = {"name": "qsmxt-group", "mem": options.group_mem, "time": options.group_time, "log": group_log}
    _write(folder / "participants.sh", (_HEAD + _PARTICIPANT).format(**common, **participant))
    _write(folder / "group.sh", (_HEAD + _GROUP).format(**common, **group))
    text = _SUBMIT.format(
        count=len(subjects),
        limit=f"%{options.at_once}" if options.at_once else "",
        participants=shlex.quote(str(folder / "participants.sh")),
        group=shlex.quote(str(folder / "group.sh")),
    )
    return _write(folder / "submit.sh", text)


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def hand_over(submit: Path) -> int:
    """Run ``submit.sh``; its exit code."""
    try:
        subprocess.run(["sbatch", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise MissingProgramError(
            "sbatch: expected on the PATH, found nothing that works; run it on a login node"
        ) from None
    return subprocess.run(["bash", str(submit)], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
