"""From a tree of DICOM files to a raw BIDS dataset.

1. :func:`read_table` lists, indexes and classifies; nothing is written.
2. The table may be changed: by a mapping, by a person.
3. :func:`convert_table` makes the files, one acquisition at a time. Every acquisition is converted in a scratch folder
   inside the dataset, checked, and moved to its place in one step; one that fails leaves nothing behind, and the
   others are converted all the same.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from qsmxt.convert.anonymisation import Key, anonymise, private_words
from qsmxt.convert.archives import Problem, list_sources
from qsmxt.convert.classification import classify
from qsmxt.convert.dataset import add_participants, describe
from qsmxt.convert.index import build_index
from qsmxt.convert.job import Job
from qsmxt.convert.mapping import apply_mapping, facts_of, load_mapping, save_mapping
from qsmxt.convert.naming import assign_labels
from qsmxt.convert.plan import make_plan
from qsmxt.convert.settings import Progress, Report, Settings, Table
from qsmxt.convert.sidecar import mentions
from qsmxt.convert.table import Row
from qsmxt.errors import OutputError, SelectionError

__all__ = ["Progress", "Report", "Settings", "Table", "convert_table", "default_key", "read_table"]

#: Where the decisions of a conversion are kept in the dataset.
SAVED_MAPPING = Path("code") / "qsmxt-convert" / "mapping.tsv"


def default_key(dataset: Path) -> Path:
    """Where the anonymisation key lies if nothing else is said: beside the dataset, never in it."""
    whole = dataset.resolve()
    return whole.with_name(f"{whole.name}_anonymisation_key.tsv")


@contextmanager
def read_table(
    source: str | Path,
    settings: Settings = Settings(),
    *,
    dataset: Path | None = None,
    progress: Progress | None = None,
) -> Iterator[Table]:
    """The table of ``source``, with labels and the mapping applied; archives stay unpacked while it is open.

    Parameters
    ----------
    source
        Folder, archive or file.
    settings
        Labels, mapping, anonymisation.
    dataset
        Where the anonymisation key is looked for.
    progress
        Called while headers are read.

    Raises
    ------
    MissingInputError
        If the source does not exist.
    SelectionError
        If it holds no MR images.
    """
    with tempfile.TemporaryDirectory(prefix="qsmxt-convert-") as scratch:
        found = list_sources(source, scratch)
        report = None if progress is None else (lambda done, total: progress("Reading headers", done, total))
        index = build_index(found.files, workers=settings.workers, done=report)
        problems = found.problems + index.problems
        if not index.frames:
            detail = f"; {problems[0]}" if problems else ""
            raise SelectionError(
                f"{source}: expected MR images in DICOM format, found none in {index.files} files{detail}"
            )
        rows = classify(index.frames)
        key = _key(settings, dataset)
        if key is not None:
            _enrol(key, rows, dataset)
            anonymise(rows, key)
        assign_labels(rows, settings.labelling, key.labels() if key and settings.labelling.subject is None else None)
        if settings.mapping is not None:
            rows = apply_mapping(rows, load_mapping(settings.mapping), settings.mapping.name)
        if key is not None:
            for row in rows:
                if row.subject:
                    key.people[row.source.patient_id].subject = row.subject
        yield Table(rows, problems, index.files, index.ignored, key)


def _key(settings: Settings, dataset: Path | None) -> Key | None:
    if not settings.anonymise:
        return None
    path = settings.key or (default_key(dataset) if dataset is not None else None)
    if path is None:
        raise OutputError("anonymisation: expected a key file or a dataset, found neither")
    if dataset is not None and path.resolve().is_relative_to(dataset.resolve()):
        raise OutputError(f"{path}: the anonymisation key must lie outside the dataset {dataset}")
    return Key.load(path)


def _enrol(key: Key, rows: Sequence[Row], dataset: Path | None) -> None:
    taken = {p.name.removeprefix("sub-") for p in dataset.glob("sub-*")} if dataset and dataset.exists() else set()
    taken -= set(key.labels().values())
    key.enrol((row.source for row in rows), taken)


def convert_table(
    table: Table, dataset: str | Path, settings: Settings = Settings(), *, progress: Progress | None = None
) -> Report:
    """Make the files of a table.

    Returns a report; a single acquisition that fails does not raise.

    Raises
    ------
    InputError
        If two rows would be written to the same file.
    OutputError
        If the dataset cannot be written.
    """
    dataset = Path(dataset)
    report = Report(problems=list(table.problems))
    _report_rows(table.rows, report)
    units = make_plan(table.rows)
    if not units:
        return report
    try:
        dataset.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".qsmxt-convert-", dir=dataset))
    except OSError as error:
        raise OutputError(f"{dataset}: cannot be written ({error.strerror})") from error
    if table.key is not None:
        table.key.save()
    try:
        job = Job(dataset, scratch, settings, report, len(units), progress)
        job.run(units)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _finish(dataset, table, settings, report)
    return report


def _report_rows(rows: Sequence[Row], report: Report) -> None:
    for row in rows:
        for text in row.warnings:
            refused = text.startswith("refused:")
            (report.problems if refused else report.warnings).append(Problem(row.title, text))


def _finish(dataset: Path, table: Table, settings: Settings, report: Report) -> None:
    if not report.written and not report.kept:
        return
    people = {}
    for row in sorted(table.rows, key=lambda row: (row.source.study_date, row.source.study_time), reverse=True):
        if row.subject and (dataset / f"sub-{row.subject}").is_dir():
            people[row.subject] = _person(row, settings.anonymise)
    add_participants(dataset, people)
    describe(dataset, ignored=report.ignored)
    if settings.mapping is None:
        save_mapping(dataset / SAVED_MAPPING, [row for row in table.rows if not (settings.anonymise and _names(row))])


def _names(row: Row) -> bool:
    """Whether what a mapping would match names the person."""
    facts = {**facts_of(row), "patient_id": "", "series_uid": ""}
    return mentions(" ".join(facts.values()), private_words(row.source))


def _person(row: Row, anonymous: bool) -> dict[str, str]:
    text = row.source.patient_age.strip()
    age = ""
    if text[:3].isdigit() and text[3:4] in ("Y", "M", "W", "D", ""):
        years = int(text[:3]) / {"Y": 1, "": 1, "M": 12, "W": 52.18, "D": 365.25}[text[3:4]]
        age = str(min(89, int(years)) if anonymous else int(years))
    sex = row.source.patient_sex.upper()
    return {
        "age": age if age != "0" or text[3:4] in ("M", "W", "D") else "",
        "sex": sex if sex in ("M", "F", "O") else "",
    }
