"""What belongs to the output dataset as a whole. Every job rewrites it, always in one step."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qsmxt.bids.atomic import write_text
from qsmxt.bids.description import write_bidsignore, write_dataset_description, write_descriptions
from qsmxt.bids.outputs import RAW, Derivatives
from qsmxt.bids.provenance import Run, write_provenance
from qsmxt.config import Settings, to_toml
from qsmxt.errors import OutputError
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
    context: Context,
    subjects: Sequence[str],
    outcomes: Sequence[Outcome],
    facts: Mapping[str, Any] | None = None,
    finished: Collection[str] = (),
) -> None:
    """Write what is due at the end: all of the subjects but those ``finished`` before, and what sums up over them."""
    from qsmxt.reports.assemble import read_records
    from qsmxt.reports.quality import write_quality_table

    for subject in subjects:
        if subject not in finished:
            finish_subject(context, subject, outcomes, facts or {})
    write_citations(context.out_dir)
    write_quality_table(context.out_dir, read_records(context.out_dir))


def finish_subject(context: Context, subject: str, outcomes: Sequence[Outcome], facts: Mapping[str, Any]) -> None:
    """Write provenance, page and outcome of a subject; a failure here loses no map."""
    from qsmxt.reports.assemble import write_report

    run = Run.ending_now(facts)
    done = {outcome.name for outcome in outcomes if outcome.status == "done"}
    _write_provenance(context.out_dir, subject, done, run, {RAW: context.bids_dir})
    problems = {o.name: o.reason for o in outcomes if o.subject == subject and o.status != "done"}
    try:
        write_report(context.out_dir, subject, problems)
        write_text(Derivatives(context.out_dir).logs(subject) / "outcome.txt", _outcome_text(subject, outcomes))
    except Exception:
        logger.exception("sub-%s: the page could not be written", subject)


class Finisher:
    """Finishes a subject as soon as all its units are done, while those of others still run.

    The program itself has little to do meanwhile, and at the end of thousands of subjects much would be left.
    ``units`` holds the names of the units of every subject that may be finished before the end.
    """

    def __init__(self, context: Context, units: Mapping[str, Collection[str]], facts: Mapping[str, Any]) -> None:
        self.context, self.facts = context, facts
        self.finished: set[str] = set()
        self._units = {subject: tuple(names) for subject, names in units.items()}
        self._left = {subject: set(names) for subject, names in units.items()}
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, name: str, subject: str) -> None:
        """A unit is done."""
        left = self._left.get(subject)
        if left and name in left:
            left.discard(name)
            if not left:
                self._thread.submit(self._finish, subject)

    def _finish(self, subject: str) -> None:
        finish_subject(self.context, subject, [Outcome(n, subject, "done") for n in self._units[subject]], self.facts)
        self.finished.add(subject)

    def close(self) -> set[str]:
        """Wait for what has begun; the subjects that are finished."""
        self._thread.shutdown()
        return self.finished


def _write_provenance(out_dir: Path, subject: str, done: set[str], run: Run, roots: Mapping[str, Path]) -> None:
    from qsmxt.reports.assemble import read_records

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
    from qsmxt.reports.assemble import read_records
    from qsmxt.reports.citations import citation_text, references_bibtex, references_text

    records = read_records(out_dir)
    if records:
        write_text(out_dir / "references.txt", references_text(records))
        write_text(out_dir / "logs" / "CITATION.md", citation_text(records))
        write_text(out_dir / "logs" / "CITATION.bib", references_bibtex(records))


def _outcome_text(subject: str, outcomes: Sequence[Outcome]) -> str:
    rows = [[o.name, o.status, o.reason] for o in outcomes if o.subject == subject]
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
