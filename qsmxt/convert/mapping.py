"""A classification that is saved, edited by hand, and replayed on the next batch of the same scanner.

A mapping is a table: TSV, or the same as TOML (``[[series]]`` with a key for every column). The columns of
:data:`MATCH` say which rows it means: shell patterns (``*``, ``?``), where ``*`` or an empty cell stands for anything.
The columns of :data:`DECIDE` say what becomes of them: ``auto`` keeps what the tags say, ``n/a`` leaves the entity
out. The first line that matches a row decides.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qsmxt.bids.atomic import write_text
from qsmxt.convert.dataset import read_tsv, write_tsv
from qsmxt.convert.table import Row
from qsmxt.errors import InputError, MissingInputError

#: Columns that are compared with the header.
MATCH = (
    "patient_id", "series_uid", "protocol", "series_description", "sequence_name", "image_type", "component", "echoes",
    "inversion_time", "combined", "manufacturer",
)  # fmt: skip
#: Columns that decide, with the cells of the table they set.
DECIDE = {
    "type": "type", "suffix": "suffix", "sub": "subject", "ses": "session", "acq": "acquisition",
    "rec": "reconstruction", "run": "run", "inv": "inversion",
}  # fmt: skip
_NUMBERS = ("run", "inversion")


@dataclass(frozen=True)
class Line:
    """One line of a mapping; ``number`` is its place in the file."""

    number: int
    match: dict[str, str]
    decide: dict[str, str]

    def matches(self, row: Row) -> bool:
        """Whether this line means ``row``."""
        facts = facts_of(row)
        return all(
            pattern in ("", "*") or fnmatchcase(facts[name].casefold(), pattern.casefold())
            for name, pattern in self.match.items()
        )


def facts_of(row: Row) -> dict[str, str]:
    """What a mapping can match."""
    source = row.source
    return {
        "patient_id": source.patient_id,
        "series_uid": source.series_uid,
        "protocol": source.protocol,
        "series_description": source.series_description,
        "sequence_name": source.sequence_name,
        "image_type": "/".join(row.image_type),
        "component": row.component,
        "echoes": str(len(row.echo_times)),
        "inversion_time": f"{row.inversion_time:g}" if row.inversion_time else "",
        "combined": "yes" if row.combined else "no",
        "manufacturer": source.manufacturer,
    }


def load_mapping(path: str | Path) -> list[Line]:
    """Read and check a mapping.

    Raises
    ------
    MissingInputError
        If there is no such file.
    InputError
        If a column is unknown, or a line decides nothing.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"mapping: expected a file, found nothing at {path}")
    columns, rows = _read_toml(path) if path.suffix.lower() == ".toml" else read_tsv(path)
    unknown = [c for c in columns if c not in MATCH and c not in DECIDE]
    if unknown or "type" not in columns:
        known = ", ".join((*MATCH, *DECIDE))
        raise InputError(f"{path}: expected the column type, and others among {known}; found {unknown or 'no type'}")
    lines = []
    first = 1 if path.suffix.lower() == ".toml" else 2  # the header is the first line of a table
    for number, cells in enumerate(rows, start=first):
        match = {c: "" if cells[c] == "n/a" else cells[c] for c in MATCH if c in cells}
        decide = {c: cells[c] for c in DECIDE if c in cells and cells[c] not in ("", "auto")}
        lines.append(Line(number, match, decide))
    return lines


def _read_toml(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Keys and series of a mapping in TOML, as columns and rows of a table."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected TOML, found something else ({error})") from None
    series = content.get("series")
    if set(content) != {"series"} or not isinstance(series, list) or not all(isinstance(one, dict) for one in series):
        raise InputError(
            f"{path}: expected tables [[series]] and nothing else, found {', '.join(content) or 'nothing'}"
        )
    rows = [{key: _toml_cell(path, key, value) for key, value in one.items()} for one in series]
    return list(dict.fromkeys(key for row in rows for key in row)), rows


def _toml_cell(path: Path, key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"{path}: {key}: expected a text or a number, found {value!r}")
    return str(value)


def apply_mapping(rows: Sequence[Row], mapping: Sequence[Line], name: str = "mapping") -> list[Row]:
    """The table as the mapping wants it; rows that no line means keep their classification, with a warning.

    Raises
    ------
    InputError
        If a line sets a cell to what it cannot hold; it is named by its number.
    """
    changed = []
    for row in rows:
        line = next((line for line in mapping if line.matches(row)), None)
        if line is None:
            row.warnings.append("no line of the mapping means this series; classified by its tags")
            changed.append(row)
            continue
        changed.append(_decided(row, line, name))
    _warn_of_shared_subjects(changed)
    return changed


def _warn_of_shared_subjects(rows: Sequence[Row]) -> None:
    """Say it if the mapping makes one subject of several patients."""
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        patients[row.subject].add(row.source.patient_id)
    for row in rows:
        if row.type != "skip" and len(patients[row.subject]) > 1:
            names = ", ".join(repr(name) for name in sorted(patients[row.subject]))
            row.warnings.append(f"patients {names} all become sub-{row.subject}")


def _decided(row: Row, line: Line, name: str) -> Row:
    changes: dict[str, object] = {}
    for column, value in line.decide.items():
        cell = DECIDE[column]
        value = "" if value == "n/a" else value.removeprefix("sub-").removeprefix("ses-")
        if cell in _NUMBERS:
            if value and not value.isdigit():
                raise InputError(f"{name}, line {line.number}: {column}: expected a number, found {value!r}")
            changes[cell] = int(value or 0)
        else:
            changes[cell] = value
    try:
        return row.edited(**changes)
    except InputError as error:
        raise InputError(f"{name}, line {line.number}: {error}") from None


def save_mapping(path: Path, rows: Iterable[Row]) -> Path:
    """Write the decisions of a table as a mapping for later batches.

    It matches what a protocol has in common (not patients and not series), so that it holds for other people.
    Lines that differ in nothing but the person are written once.
    """
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        facts = {**facts_of(row), "patient_id": "*", "series_uid": "*"}
        decide = {"type": row.type, "suffix": row.suffix, "sub": "auto", "ses": "auto", "acq": row.acquisition,
                  "rec": row.reconstruction, "run": "auto", "inv": str(row.inversion or "")}  # fmt: skip
        if row.refused_as is not None:
            continue
        facts = {name: _literal(value) if value != "*" else value for name, value in facts.items()}
        lines.setdefault(tuple(facts.values()), {**facts, **decide})
    if path.suffix.lower() != ".toml":
        return write_tsv(path, [*MATCH, *DECIDE], lines.values())
    import tomli_w

    series = [{key: value or ("" if key in MATCH else "n/a") for key, value in line.items()} for line in lines.values()]
    return write_text(path, tomli_w.dumps({"series": series}))


def _literal(text: str) -> str:
    """Pattern that matches ``text`` itself: what has a meaning in shell patterns is bracketed."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in " ".join(text.split()))
