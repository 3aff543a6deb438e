"""Remove identity, and shift the dates of every person by a number of days of its own.

A key outside the dataset says which label and which shift belong to which patient; it makes later batches of the same
study consistent. Whoever has the key can undo the anonymisation: it is written for its owner only. Intervals between
the dates of a person are kept; all dates end before 1925, as BIDS asks.
"""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from qsmxt.convert.headers import Source
from qsmxt.convert.sidecar import mentions
from qsmxt.convert.table import Row, is_label, label_of
from qsmxt.errors import InputError

#: First dates of patients come to lie in these years, so that later ones stay before 1925 for 15 years.
_FIRST_DAY, _SPAN = date(1900, 1, 1), 3650
_COLUMNS = ("patient_id", "participant_id", "shift_days")


@dataclass
class Person:
    """Label of the subject, and days to add to every date (negative)."""

    subject: str
    shift: int


@dataclass
class Key:
    """Who is who."""

    path: Path
    people: dict[str, Person] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Key:
        """Read the key, or begin an empty one.

        Raises
        ------
        InputError
            If the file is not a key.
        """
        key = cls(path)
        if not path.exists():
            return key
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                raise InputError(f"{path}: expected the columns {', '.join(_COLUMNS)}, found {reader.fieldnames}")
            for line in reader:
                label = line["participant_id"].removeprefix("sub-")
                if not is_label(label) or not re.fullmatch(r"-?\d+", line["shift_days"]):
                    raise InputError(f"{path}: expected a label and a number of days, found {line}")
                key.people[line["patient_id"]] = Person(label, int(line["shift_days"]))
        return key

    def save(self) -> None:
        """Write the key, readable for its owner only."""
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        writer.writerow(_COLUMNS)
        for patient, person in sorted(self.people.items(), key=lambda item: item[1].subject):
            writer.writerow((patient, f"sub-{person.subject}", person.shift))
        partial = self.path.with_name(f".{self.path.name}.tmp")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text.getvalue())
        partial.replace(self.path)

    def labels(self) -> dict[str, str]:
        """Subject labels by patient identifier."""
        return {patient: person.subject for patient, person in self.people.items()}

    def enrol(self, sources: Iterable[Source], taken: Iterable[str] = ()) -> None:
        """Give every new patient the next free number and a shift."""
        first: dict[str, str] = {}
        for source in sources:
            day = source.study_date or "99999999"
            first[source.patient_id] = min(day, first.get(source.patient_id, day))
        used = {person.subject for person in self.people.values()} | set(taken)
        number = 0
        for patient, day in sorted(first.items(), key=lambda item: (item[1], item[0])):
            if patient in self.people:
                continue
            while True:
                number += 1
                label = f"{number:03d}"
                if label not in used:
                    break
            used.add(label)
            target = _FIRST_DAY + timedelta(days=secrets.randbelow(_SPAN))
            known = parse_date(day)
            self.people[patient] = Person(label, (target - known).days if known else 0)


def parse_date(text: str) -> date | None:
    """A DICOM date, or ``None`` if it is not one."""
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


def shifted(text: str, days: int) -> str:
    """A DICOM date some days away; empty if it is not a date."""
    day = parse_date(text)
    if day is None:
        return ""
    moved = day + timedelta(days=days)
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"


def private_words(source: Source) -> set[str]:
    """Words that identify the person: identifier, accession number and parts of the name."""
    words = {source.patient_id, source.accession_number, *re.split(r"[\s^=,]+", source.patient_name)}
    return {word.casefold() for word in words if len(word) >= 3}


def anonymise(rows: Iterable[Row], key: Key) -> None:
    """Shift all dates of the rows' headers and take the person out of labels made from the protocol."""
    done: set[int] = set()
    for row in rows:
        words = private_words(row.source)
        if mentions(row.acquisition, {label_of(word) for word in words if len(label_of(word)) >= 3}):
            row.acquisition = f"{label_of(row.source.sequence_name) or 'series'}g{row.group}"
        for source in {id(f.source): f.source for v in row.volumes for f in v.frames}.values():
            if id(source) in done:
                continue
            done.add(id(source))
            days = key.people[source.patient_id].shift
            source.study_date = shifted(source.study_date, days)
            source.acquisition_date = shifted(source.acquisition_date, days)
