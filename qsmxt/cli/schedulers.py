"""What differs between schedulers: directives, the number of a task, how jobs are handed over and wait for each other.

Array job and group job are shell scripts with the directives of one scheduler. The group job always waits for *any*
end of the array, because one failed participant would otherwise hold it back for ever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qsmxt.errors import ParameterError

#: Bytes of a unit of memory, powers of 1024 as schedulers count.
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


@dataclass(frozen=True)
class Job:
    """What a job asks for; ``log`` is where its output goes, without extension."""

    name: str
    cpus: int
    mem: str
    time: str
    log: Path
    array: bool = False

    def megabytes(self) -> int:
        """Memory in MB, rounded up."""
        return math.ceil(float(self.mem[:-1]) * _UNITS[self.mem[-1]])


@dataclass(frozen=True)
class Scheduler:
    """One kind of scheduler.

    ``task`` is the variable that holds the number of a task; ``submit`` the text of ``submit.sh``, with ``{count}``,
    ``{limit}``, ``{participants}`` and ``{group}`` (quoted files); ``program`` must be on the path.
    """

    program: str
    prefix: str
    task: str
    directives: Callable[[Job], list[str]]
    limit: str
    submit: str


def check_memory(flag: str, text: str) -> str:
    """``text`` if it is a whole number with unit."""
    if not re.fullmatch(r"[1-9]\d*[KMGT]", text):
        raise ParameterError(f"{flag}: expected a whole number with unit such as 8G, found {text}")
    return text


def check_time(flag: str, text: str) -> str:
    """``text`` if it is hours, minutes and seconds."""
    if not re.fullmatch(r"\d{1,3}:[0-5]\d:[0-5]\d", text):
        raise ParameterError(f"{flag}: expected hours:minutes:seconds such as 04:00:00, found {text}")
    return text


def _slurm(job: Job) -> list[str]:
    log = f"{job.log}-%A_%a.log" if job.array else f"{job.log}-%j.log"
    return [
        f"--job-name={job.name}", "--nodes=1", "--ntasks=1", f"--cpus-per-task={job.cpus}", f"--mem={job.mem}",
        f"--time={job.time}", f"--output={log}",
    ]  # fmt: skip


def _pbs(job: Job) -> list[str]:
    return [
        f"-N {job.name}", f"-l select=1:ncpus={job.cpus}:mem={job.megabytes()}mb", f"-l walltime={job.time}",
        "-j oe", f"-o {job.log.parent}", "-V",
    ]  # fmt: skip


def _sge(job: Job) -> list[str]:
    log = f"{job.log}-$JOB_ID.$TASK_ID.log" if job.array else f"{job.log}-$JOB_ID.log"
    each = math.ceil(job.megabytes() / job.cpus)
    return [
        f"-N {job.name}", "-S /bin/bash", "-V", f"-pe smp {job.cpus}", f"-l h_vmem={each}M",
        f"-l h_rt={job.time}", "-j y", f"-o {log}",
    ]  # fmt: skip


_HEAD = "#!/bin/bash\nset -euo pipefail\n"

_SLURM_SUBMIT = """\
participants=$(sbatch --parsable --array=1-{count}{limit} {participants})
participants=${{participants%%;*}}
group=$(sbatch --parsable --dependency="afterany:$participants" {group})
echo "participants: $participants, group: ${{group%%;*}}"
"""

#: PBS refuses an array of one task.
_PBS_SUBMIT = """\
if [ {count} -gt 1 ]; then range="-J 1-{count}{limit}"; else range="-v PBS_ARRAY_INDEX=1"; fi
participants=$(qsub $range {participants})
group=$(qsub -W "depend=afterany:$participants" {group})
echo "participants: $participants, group: $group"
"""

#: ``qsub -terse`` of an array prints ``JOB.FIRST-LAST:STEP``; a job held by ``-hold_jid`` starts after any end.
_SGE_SUBMIT = """\
participants=$(qsub -terse -t 1-{count}{limit} {participants})
participants=${{participants%%.*}}
group=$(qsub -terse -hold_jid "$participants" {group})
echo "participants: $participants, group: $group"
"""

SCHEDULERS: dict[str, Scheduler] = {
    "slurm": Scheduler("sbatch", "#SBATCH", "SLURM_ARRAY_TASK_ID", _slurm, "%{number}", _HEAD + _SLURM_SUBMIT),
    "pbs": Scheduler("qsub", "#PBS", "PBS_ARRAY_INDEX", _pbs, "%{number}", _HEAD + _PBS_SUBMIT),
    "sge": Scheduler("qsub", "#$", "SGE_TASK_ID", _sge, " -tc {number}", _HEAD + _SGE_SUBMIT),
}
