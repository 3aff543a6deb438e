"""What the participant level, or another program, left for the group level: scans, their files, who is missing."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmxt.bids.entities import SHORT_NAMES, parse_name, stem, strip_prefix
from qsmxt.bids.metadata import read_json
from qsmxt.bids.outputs import derivative_entities
from qsmxt.bids.units import ProcessingUnit
from qsmxt.errors import InputError, MissingInputError, QSMxTError
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.workflows.segmentation import choose_t1w

#: Maps that the group level knows, best name first: artifact, then ``(suffix, desc)``.
_MAPS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "chi": ((str(ARTIFACTS["chi"].suffix), None),),
    "combined_magnitude": (("T2starw", ARTIFACTS["combined_magnitude"].desc), ("T2starw", None)),
    "r2star": ((str(ARTIFACTS["r2star"].suffix), None),),
    "mask": (("mask", ARTIFACTS["mask"].desc), ("mask", None)),
}

#: Entities that tell maps of one scan apart, and do not tell scans apart.
_OF_MAPS = (
    "description",
    "segmentation",
    "atlas",
    "label",
    "scale",
    "resolution",
    "echo",
    "part",
    "from",
    "to",
    "mode",
)

#: What stands for a missing value in a table.
MISSING = "n/a"


@dataclass(frozen=True)
class Scan:
    """One processed acquisition: its entities (long names), its maps by artifact, labels and tables of regions.

    ``t1w`` is the T1-weighted image of the source dataset, ``rigid`` the transform to it that segmentation left.
    """

    entities: dict[str, str] = field(hash=False)
    maps: dict[str, Path] = field(default_factory=dict, hash=False)
    labels: tuple[Path, ...] = ()
    tables: tuple[Path, ...] = ()
    t1w: Path | None = None
    rigid: Path | None = None

    @property
    def name(self) -> str:
        """Such as ``sub-1_ses-2_acq-x``."""
        return scan_name(self.entities)

    @property
    def subject(self) -> str:
        """Label without ``sub-``."""
        return self.entities["subject"]

    def columns(self) -> dict[str, str]:
        """Columns that identify the scan in a table."""
        ids = {"participant_id": f"sub-{self.subject}"}
        if "session" in self.entities:
            ids["session_id"] = f"ses-{self.entities['session']}"
        others = {n: v for n, v in self.entities.items() if n not in ("subject", "session")}
        return {**ids, **{SHORT_NAMES.get(name, name): label for name, label in others.items()}}


def scan_name(entities: Mapping[str, str]) -> str:
    """Name of a scan, from entities that need not be in order."""
    return stem(entities, "x")[:-2]


@dataclass(frozen=True)
class Cohort:
    """All scans in the order of their names, and the names of those that the dataset has but that are not done."""

    scans: tuple[Scan, ...]
    missing: tuple[str, ...] = ()

    @property
    def subjects(self) -> list[str]:
        """Labels of all subjects with a scan."""
        return sorted({scan.subject for scan in self.scans})


def find_cohort(
    out_dir: Path, *, participants: Sequence[str] | None = None, expected: Iterable[ProcessingUnit] = ()
) -> Cohort:
    """Scans in a derivative dataset.

    Parameters
    ----------
    out_dir
        Its root. Maps of any software count if BIDS names them like this package does.
    participants
        Labels; all if ``None``.
    expected
        Units of the source dataset; those without any map are ``missing``, as are participants without a scan.

    Raises
    ------
    MissingInputError
        If there is no scan at all.
    """
    units = {scan_name(derivative_entities(unit)): unit for unit in expected}
    wanted = None if participants is None else {strip_prefix(label, "sub") for label in participants}
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(out_dir.glob("sub-*/**/*_*.*")):
        entities, suffix, extension = parse_name(path.name)
        chosen = wanted is None or entities.get("subject") in wanted
        if "subject" in entities and "space" not in entities and chosen and path.parent.name != "figures":
            _add(found, entities, suffix, extension, path)
    scans = []
    for _, content in sorted(found.items()):
        maps = {key: min(paths)[1] for key, paths in content["maps"].items()}
        unit = units.get(scan_name(content["entities"]))
        t1w = choose_t1w(unit)[0] if unit is not None else None
        rigid = content["rigid"] if t1w is not None else None
        tables = one_of_each(content["tables"])
        scans.append(Scan(content["entities"], maps, tuple(content["labels"]), tables, t1w, rigid))
    scans = [scan for scan in scans if scan.maps.keys() - {"mask", "combined_magnitude"} or scan.tables]
    done = {scan.name for scan in scans}
    missing = {unit.name for name, unit in units.items() if name not in done}
    missing |= {f"sub-{label}" for label in wanted or () if label not in {scan.subject for scan in scans}}
    if not scans:
        raise MissingInputError(
            f"group: expected maps or tables of finished participants in {out_dir}, found none; run participant first"
        )
    return Cohort(tuple(scans), tuple(sorted(missing)))


def _add(found: dict[str, dict[str, Any]], entities: dict[str, str], suffix: str, extension: str, path: Path) -> None:
    """Put a file to its scan, if it is one that counts; ``label-brain`` of a mask says what ``desc-brain`` says."""
    if suffix == "mask" and entities.get("label") == "brain" and "description" not in entities:
        entities = {**{k: v for k, v in entities.items() if k != "label"}, "description": "brain"}
    own = {name: label for name, label in entities.items() if name not in _OF_MAPS}
    empty: dict[str, Any] = {"entities": own, "maps": {}, "labels": [], "tables": [], "rigid": None}
    entry = found.setdefault(scan_name(own), empty)
    if suffix == "stats" and extension in (".tsv", ".csv"):
        entry["tables"].append(path)
    elif suffix == "xfm" and (entities.get("from"), entities.get("to")) == ("T1w", "GRE"):
        entry["rigid"] = path
    elif extension not in (".nii", ".nii.gz"):
        return
    elif suffix == "dseg":
        entry["labels"].append(path)
    elif not set(entities) & (set(_OF_MAPS) - {"description"}):
        for key, names in _MAPS.items():
            if (suffix, entities.get("description")) in names:
                rank = names.index((suffix, entities.get("description")))
                entry["maps"].setdefault(key, []).append((rank, path))


def one_of_each(tables: Sequence[Path]) -> tuple[Path, ...]:
    """Tables without those that say the same in another format: of ``x.csv`` and ``x.tsv`` the latter counts.

    >>> [path.name for path in one_of_each([Path("x.csv"), Path("x.tsv"), Path("y.csv")])]
    ['x.tsv', 'y.csv']
    """
    chosen: dict[Path, Path] = {}
    for path in tables:
        key = path.with_suffix("")
        if key not in chosen or path.suffix == ".tsv":
            chosen[key] = path
    return tuple(chosen[key] for key in sorted(chosen))


def check_required(cohort: Cohort, require: str) -> None:
    """Enforce the rule about incomplete cohorts: ``all``, or the smallest number of scans.

    Raises
    ------
    MissingInputError
        If the rule is broken; the message names who is missing.
    InputError
        If the rule is neither.
    """
    if require != "all" and not require.isdigit():
        raise InputError(f"--group-require: expected a number or all, found {require!r}")
    names = ", ".join(cohort.missing) or "nobody known"
    if require == "all" and cohort.missing:
        raise MissingInputError(f"group: expected all scans, {len(cohort.missing)} have no results: {names}")
    if require != "all" and len(cohort.scans) < int(require):
        raise MissingInputError(
            f"group: expected {require} scans with results, found {len(cohort.scans)}; missing: {names}"
        )


def quality_rows(cohort: Cohort, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a scan with every number that the records of its runs report."""
    by_name: dict[str, dict[str, Any]] = {}
    for record in records:
        files = list(dict(record["files"]).values())
        if not files:
            continue
        entities, _, _ = parse_name(Path(files[0]).name)
        name = scan_name({key: label for key, label in entities.items() if key not in _OF_MAPS})
        row = by_name.setdefault(name, {})
        row.update(_numbers(record.get("statistics", {})))
        row["notes"] = row.get("notes", 0) + len(record.get("notes", ()))
    return [{**scan.columns(), **by_name[scan.name]} for scan in cohort.scans if scan.name in by_name]


def _numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """All numbers of a tree, named by their way through it."""
    found: dict[str, float] = {}
    for key, value in sorted(values.items()):
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found.update(_numbers(value, f"{name}."))
        elif isinstance(value, (int, float)):
            found[name] = float(value)
    return found


def read_covariates(cohort: Cohort, roots: Sequence[Path]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Covariates of every scan by its name, and the data dictionary of ``participants.json``.

    Parameters
    ----------
    cohort
        The scans.
    roots
        Datasets to look in for ``participants.tsv`` and ``sub-*/sub-*_sessions.tsv``; the first that has one counts.
    """
    people = _first_table(roots, "participants.tsv")
    by_person = {strip_prefix(str(row.get("participant_id", "")), "sub"): row for row in people}
    found = {}
    for scan in cohort.scans:
        row = {k: v for k, v in by_person.get(scan.subject, {}).items() if k != "participant_id"}
        if "session" in scan.entities:
            sessions = _first_table(roots, f"sub-{scan.subject}/sub-{scan.subject}_sessions.tsv")
            for session in sessions:
                if strip_prefix(str(session.get("session_id", "")), "ses") == scan.entities["session"]:
                    row.update((k, v) for k, v in session.items() if k != "session_id")
        found[scan.name] = row
    return _typed(found), _dictionary(roots)


def _first_table(roots: Sequence[Path], name: str) -> list[dict[str, str]]:
    for root in roots:
        if (root / name).is_file():
            return read_table(root / name)
    return []


def _dictionary(roots: Sequence[Path]) -> dict[str, Any]:
    for root in roots:
        try:
            return read_json(root / "participants.json")
        except QSMxTError:
            continue
    return {}


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a TSV or CSV file as text."""
    delimiter = "," if path.suffix == ".csv" else "\t"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a table, found {error}; repair the file") from None


def _typed(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Columns that hold numbers only become numbers; missing values ``None``."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row if name))
    for name in names:
        texts = [row.get(name) for row in rows.values()]
        numbers = [number(text) for text in texts]
        numeric = all(value is not None or is_missing(text) for value, text in zip(numbers, texts, strict=True))
        for row, text, value in zip(rows.values(), texts, numbers, strict=True):
            row[name] = None if is_missing(text) else value if numeric else str(text)
    return rows


def is_missing(text: Any) -> bool:
    """Whether a cell holds nothing."""
    return text is None or str(text).strip().lower() in ("", MISSING, "nan", "na")


def number(text: Any) -> float | None:
    """The number in a cell, or ``None``."""
    try:
        return None if is_missing(text) else float(text)
    except ValueError:
        return None


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as TSV, columns in the order of their first use, ``n/a`` for what is missing."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["\t".join(columns)]
    lines += ["\t".join(_cell(row.get(name)) for name in columns) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return MISSING
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.8g}"
    return " ".join(str(value).split())
