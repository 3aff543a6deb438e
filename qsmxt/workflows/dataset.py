"""What belongs to the output dataset as a whole. Every job rewrites it, always in one step."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsmxt.bids.atomic import write_text
from qsmxt.bids.description import write_bidsignore, write_dataset_description, write_descriptions
from qsmxt.bids.outputs import RAW, Derivatives
from qsmxt.bids.provenance import Run, write_provenance
from qsmxt.config import Settings, to_toml
from qsmxt.errors import OutputError
from qsmxt.reports.assemble import read_records, write_report
from qsmxt.reports.citations import citation_text, references_bibtex, references_text
from qsmxt.reports.quality import write_quality_table
from qsmxt.workflows.unit import Context
from qsmxt.workflows.watch import Outcome

logger = logging.getLogger("qsmxt")


def start_dataset(context: Context, settings: Settings, subjects: Sequence[str], run: dict[str, Any]) -> None:
    """Write the description and the settings; fails early if the folder cannot be written."""
    out_dir = context.out_dir
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output_dir {out_dir}: cannot be made ({error.strerror})") from None
    write_dataset_description(out_dir, context.bids_dir, context.version)
    write_bidsignore(out_dir)
    write_descriptions(out_dir)
    text = to_toml(settings, run)
    write_text(out_dir / "logs" / "qsmxt.toml", text)
    for subject in subjects:
        write_text(Derivatives(out_dir).logs(subject) / "qsmxt.toml", text)


def finish_dataset(
    context: Context, subjects: Sequence[str], outcomes: Sequence[Outcome], facts: Mapping[str, Any] | None = None
) -> None:
    """Write provenance, the pages of the subjects, the citations and the outcome; a failure here loses no map."""
    out_dir = context.out_dir
    facts = facts or {}
    this = Run(str(facts.get("command", "")), str(facts.get("started", "")), time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    for subject in subjects:
        done = {outcome.name for outcome in outcomes if outcome.status == "done"}
        _write_provenance(out_dir, subject, done, this, {RAW: context.bids_dir})
        problems = {o.name: o.reason for o in outcomes if o.subject == subject and o.status != "done"}
        try:
            write_report(out_dir, subject, problems)
            write_text(Derivatives(out_dir).logs(subject) / "outcome.txt", _outcome_text(subject, outcomes))
        except Exception:
            logger.exception("sub-%s: the page could not be written", subject)
    write_citations(out_dir)
    write_quality_table(out_dir, read_records(out_dir))


def _write_provenance(out_dir: Path, subject: str, done: set[str], run: Run, roots: Mapping[str, Path]) -> None:
    records = read_records(out_dir, subject)
    for unit in sorted(done):
        own = [record for record in records if record["unit"] == unit]
        try:
            if own:
                write_provenance(out_dir, unit, own, run, roots)
        except Exception:
            logger.exception("%s: the provenance could not be written", unit)


def write_citations(out_dir: Path) -> None:
    """``references.txt``, ``logs/CITATION.md`` and ``logs/CITATION.bib`` from all that ran into this dataset."""
    records = read_records(out_dir)
    if records:
        write_text(out_dir / "references.txt", references_text(records))
        write_text(out_dir / "logs" / "CITATION.md", citation_text(records))
        write_text(out_dir / "logs" / "CITATION.bib", references_bibtex(records))


def _outcome_text(subject: str, outcomes: Sequence[Outcome]) -> str:
    rows = [[o.name, o.status, o.reason] for o in outcomes if o.subject == subject]
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
