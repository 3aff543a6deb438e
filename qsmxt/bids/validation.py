"""Run the official BIDS validator, if it is installed (``pip install bids-validator-deno``)."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

from qsmxt.errors import ValidationError

PROGRAM = "bids-validator-deno"

_LOGGER = logging.getLogger(__name__)


def find_validator() -> Path | None:
    """The executable: beside the Python that runs, or on the path; ``None`` if there is none."""
    beside = Path(sys.executable).with_name(PROGRAM)
    if beside.is_file():
        return beside
    found = shutil.which(PROGRAM)
    return Path(found) if found else None


def validate(bids_dir: str | Path) -> list[str]:
    """Errors of a dataset in words; empty if there are none.

    Without a validator the list is empty and a warning is logged.

    Raises
    ------
    ValidationError
        If the validator itself fails.
    """
    program = find_validator()
    if program is None:
        _LOGGER.warning("BIDS validation skipped: %s is not installed (pip install %s)", PROGRAM, PROGRAM)
        return []
    command = [str(program), str(bids_dir), "--ignoreWarnings", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValidationError(
            f"{bids_dir}: the BIDS validator failed with code {done.returncode} "
            f"({' '.join(done.stderr.split())[-300:]}); repair it, or give --skip-bids-validation"
        ) from None
    errors = [issue for issue in issues if issue.get("severity", "error") == "error"]
    return sorted(_sentence(issue) for issue in errors)


def _sentence(issue: dict[str, str]) -> str:
    more = [issue.get(key) for key in ("subCode", "issueMessage")]
    return ": ".join(
        [issue.get("location") or "dataset", issue.get("code") or "error", *(text for text in more if text)]
    )
