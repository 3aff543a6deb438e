"""The group level: gather what the participant level left in the output dataset."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from qsmxt.errors import MissingInputError
from qsmxt.reports.assemble import read_records
from qsmxt.workflows.dataset import write_citations

logger = logging.getLogger("qsmxt")


def run_group(out_dir: Path, participants: Sequence[str] | None = None) -> int:
    """Gather; says which of the ``participants`` asked for are missing.

    Raises
    ------
    MissingInputError
        If there is nothing to gather.
    """
    subjects = {str(record["subject"]) for record in read_records(out_dir)}
    wanted = set(participants) if participants is not None else subjects
    if not subjects & wanted:
        raise MissingInputError(
            f"group: expected finished participants in {out_dir}, found none; run participant first"
        )
    for missing in sorted(wanted - subjects):
        logger.warning("group: sub-%s has no results; left out", missing)
    write_citations(out_dir)
    return 0
