"""From a tree of DICOM files to a raw BIDS dataset.

1. :func:`read_table` lists, indexes and classifies; nothing is written.
2. The table may be changed: by a mapping, by a person.
3. :func:`convert_table` makes the files, one acquisition at a time. Every acquisition is converted in a scratch folder
   inside the dataset, checked, and moved to its place in one step; one that fails leaves nothing behind, and the
   others are converted all the same.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from qsmxt.bids.atomic import write_json
from qsmxt.convert.anonymisation import Key, anonymise, private_words
from qsmxt.convert.archives import Problem, list_sources
from qsmxt.convert.classification import classify
from qsmxt.convert.coils import combine_coils, combined_name, find_method
from qsmxt.convert.dataset import add_participants, add_scans, check_inside, describe, install, save_image
from qsmxt.convert.dcm2niix import Converter
from qsmxt.convert.index import build_index
from qsmxt.convert.mapping import apply_mapping, facts_of, load_mapping, save_mapping
from qsmxt.convert.naming import Labelling, assign_labels
from qsmxt.convert.plan import Piece, Unit, make_plan
from qsmxt.convert.sidecar import complete, mentions, without_identity
from qsmxt.convert.table import Row
from qsmxt.convert.vendor import Image, correct_phases
from qsmxt.errors import OutputError, QSMxTError, SelectionError

#: Called with a sentence about what is being done, the number of steps done, and of all steps.
Progress = Callable[[str, int, int], None]

#: Where the decisions of a conversion are kept in the dataset.
SAVED_MAPPING = Path("code") / "qsmxt-convert" / "mapping.tsv"


@dataclass(frozen=True)
class Settings:
    """How to convert.

    Attributes
    ----------
    labelling
        Rules for subjects and sessions.
    mapping
        File that decides about series, or ``None``.
    overwrite
        Whether files that are there may be replaced.
    anonymise
        Whether to remove identity and shift dates.
    key
        File that links patients and labels; default: beside the dataset.
    combine
        Method of coil combination for uncombined data, ``"default"``, or ``None`` to keep the receive elements.
    workers
        Processes that read headers and threads that convert; default: all cores, at most 8.
    """

    labelling: Labelling = field(default_factory=Labelling)
    mapping: Path | None = None
    overwrite: bool = False
    anonymise: bool = False
    key: Path | None = None
    combine: str | None = None
    workers: int | None = None


@dataclass
class Table:
    """What was found in a source tree, and what could not be used."""

    rows: list[Row]
    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    ignored: int = 0
    key: Key | None = None


@dataclass
class Report:
    """What came of a conversion.

    Attributes
    ----------
    written
        New images, without their sidecars.
    kept
        Acquisitions that were there already.
    problems
        What could not be converted, by name.
    warnings
        What was converted with a reservation, by name.
    """

    written: list[Path] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


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
    try:
        dataset.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".qsmxt-convert-", dir=dataset))
    except OSError as error:
        raise OutputError(f"{dataset}: cannot be written ({error.strerror})") from error
    if table.key is not None:
        table.key.save()
    try:
        job = _Job(dataset, scratch, settings, report, len(units), progress)
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
    describe(dataset)
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


class _Job:
    """Units converted by several threads; the report is the only thing that they share."""

    def __init__(
        self, dataset: Path, scratch: Path, settings: Settings, report: Report, total: int, progress: Progress | None
    ) -> None:
        self.dataset, self.scratch, self.settings, self.report = dataset, scratch, settings, report
        self.total, self.progress = total, progress
        self.method = find_method(settings.combine).key if settings.combine else ""
        self.done = 0
        self.lock = threading.Lock()

    def run(self, units: Sequence[Unit]) -> None:
        """Convert all units; those of one multi-frame file follow each other, so that it is converted once."""
        buckets: dict[str, list[Unit]] = defaultdict(list)
        for number, unit in enumerate(units):
            shared = next((r.source.path for r in unit.rows if r.source.multiframe), str(number))
            buckets[shared].append(unit)
        workers = self.settings.workers or min(8, len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(max(1, workers)) as pool:
            list(pool.map(self._bucket, enumerate(buckets.values())))
        self.report.written.sort()
        self.report.kept.sort()
        self.report.problems.sort(key=lambda p: (p.name, p.reason))
        self.report.warnings.sort(key=lambda p: (p.name, p.reason))

    def _bucket(self, numbered: tuple[int, list[Unit]]) -> None:
        number, units = numbered
        folder = self.scratch / f"{number:05d}"
        folder.mkdir()
        converter = Converter(folder)
        for unit in units:
            self._unit(unit, converter, folder)
            with self.lock:
                self.done += 1
                if self.progress is not None:
                    self.progress(unit.name, self.done, self.total)
        shutil.rmtree(folder, ignore_errors=True)

    def _unit(self, unit: Unit, converter: Converter, folder: Path) -> None:
        for text in unit.warnings:
            self._tell(self.report.problems, unit, text)
        if not unit.pieces:
            return
        combines = bool(self.settings.combine) and not unit.rows[0].combined and unit.type == "part"
        outputs = [combined_name(o, self.method) for o in unit.outputs] if combines else unit.outputs
        existing = unit.existing(self.dataset, outputs)
        if existing and not self.settings.overwrite:
            with self.lock:
                self.report.kept.append(unit.name)
            return
        try:
            pairs = self._make(unit, converter, folder)
            with self.lock:
                install(pairs, overwrite=self.settings.overwrite)
                self._register(unit, pairs)
        except QSMxTError as error:
            self._tell(self.report.problems, unit, str(error))
        except Exception as error:  # one damaged series must not stop the others
            self._tell(self.report.problems, unit, f"failed ({type(error).__name__}: {error})")

    def _tell(self, where: list[Problem], unit: Unit, text: str) -> None:
        titles = ", ".join(dict.fromkeys(row.title for row in unit.rows))
        with self.lock:
            where.append(Problem(f"{unit.name} ({titles})" if titles not in unit.name else unit.name, text))

    def _make(self, unit: Unit, converter: Converter, folder: Path) -> list[tuple[Path, Path]]:
        """Finished files in the scratch folder, and where they belong."""
        converted = []
        for piece in unit.pieces:
            converted.append({part: converter.convert(volume) for part, volume in piece.volumes.items()})
            for text in converter.messages:
                if text.startswith("Error"):
                    self._tell(self.report.warnings, unit, text)
        if unit.type == "part":
            images, warnings = correct_phases(converted, unit.rows[0].source.vendor)
            for text in warnings:
                self._tell(self.report.warnings, unit, text)
        else:
            images = [{part: Image.of(c) for part, c in echo.items()} for echo in converted]
        del converted
        pieces = unit.pieces
        if self.settings.combine and not unit.rows[0].combined and unit.type == "part":
            pieces, images = combine_coils(unit, images, self.method)
        pairs: list[tuple[Path, Path]] = []
        for piece, echo in zip(pieces, images, strict=True):
            for part, image in echo.items():
                pairs += self._save(unit, piece, part, image, folder / f"ready-{len(pairs):05d}")
        return pairs

    def _save(self, unit: Unit, piece: Piece, part: str, image: Image, temporary: Path) -> list[tuple[Path, Path]]:
        volume = piece.volumes.get(part) or piece.volumes.get("real") or next(iter(piece.volumes.values()))
        if unit.type == "fieldmap":
            _fieldmap_sidecar(unit, part, image)
        sidecar = complete(image.sidecar, volume, part)
        if unit.type == "fieldmap" and part == "phasediff":
            sidecar.pop("EchoTime", None)
        if self.settings.anonymise:
            sidecar = without_identity(sidecar, private_words(volume.source))
        target = piece.outputs[part]
        ready_json = write_json(temporary.with_suffix(".json"), sidecar)
        ready = save_image(temporary.with_suffix(".nii.gz"), image)
        return [
            (ready_json, check_inside(self.dataset, f"{target}.json")),
            (ready, check_inside(self.dataset, f"{target}.nii.gz")),
        ]

    def _register(self, unit: Unit, pairs: Sequence[tuple[Path, Path]]) -> None:
        images = [target for _, target in pairs if target.name.endswith(".nii.gz")]
        self.report.written += images
        if unit.type == "extra":
            return
        folder = self.dataset / f"sub-{unit.subject}"
        folder = folder / f"ses-{unit.session}" if unit.session else folder
        source = unit.rows[0].source
        public = [image for image in images if "_coil-" not in image.name]
        times = {image.relative_to(folder).as_posix(): _acquisition_time(source) for image in public}
        if times:
            add_scans(self.dataset, unit.subject, unit.session, times)


def _fieldmap_sidecar(unit: Unit, part: str, image: Image) -> None:
    if part == "fieldmap":
        image.sidecar["Units"] = "Hz"
    elif part in ("phase1", "phase2", "phasediff"):
        image.sidecar["Units"] = "arbitrary"
    if part == "phasediff":
        times = next((row.echo_times for row in unit.rows if len(row.echo_times) == 2), None)
        if times is not None:
            image.sidecar["EchoTime1"], image.sidecar["EchoTime2"] = times


def _acquisition_time(source: object) -> str:
    """Date and time in the form of BIDS, or empty."""
    day = getattr(source, "acquisition_date", "") or getattr(source, "study_date", "")
    clock = getattr(source, "acquisition_time", "").replace(":", "")
    if len(day) != 8 or not day.isdigit() or len(clock) < 6:
        return ""
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:6]}"
