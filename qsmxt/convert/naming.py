"""Labels of subjects and sessions, and names of files in the raw dataset."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qsmxt.bids.entities import SHORT_NAMES, in_order
from qsmxt.convert.headers import Source
from qsmxt.convert.table import Row, is_label, label_of
from qsmxt.errors import InputError, ParameterError

#: Header fields that a pattern may look at.
PATTERN_FIELDS = (
    "patient_id", "patient_name", "study_date", "study_time", "study_id", "study_description", "accession_number",
    "series_description", "path",
)  # fmt: skip

_HOSTILE = re.compile(r"(^|[\\/])\.\.([\\/]|$)|^[\\/]")


@dataclass(frozen=True)
class Pattern:
    """A regular expression on one field of the header.

    Written ``REGEX`` (of the patient's identifier or the study date) or ``FIELD=REGEX``. The label is the first
    group, or the whole match if there is none.
    """

    field: str
    expression: re.Pattern[str]

    @classmethod
    def parse(cls, text: str, default_field: str) -> Pattern:
        """Read a pattern.

        Raises
        ------
        ParameterError
            If the regular expression is not valid.
        """
        field, sign, expression = text.partition("=")
        if not sign or field not in PATTERN_FIELDS:
            field, expression = default_field, text
        try:
            return cls(field, re.compile(expression))
        except re.error as error:
            raise ParameterError(f"pattern: expected a regular expression, found {expression!r} ({error})") from None

    def label(self, source: Source) -> str | None:
        """Label for a file, or ``None`` if the pattern does not match."""
        found = self.expression.search(getattr(source, self.field))
        if found is None:
            return None
        return label_of(found.group(1) if found.re.groups and found.group(1) else found.group(0)) or None


@dataclass(frozen=True)
class Labelling:
    """How subjects and sessions get their labels.

    Attributes
    ----------
    subject
        Pattern, or ``None`` for the patient's identifier.
    session
        Pattern, ``"date"`` (of the study), ``"number"`` (of the study, in the order of time) or ``"none"``.
    """

    subject: Pattern | None = None
    session: Pattern | str = "date"

    @classmethod
    def parse(cls, subject: str | None, session: str | None) -> Labelling:
        """From command-line texts."""
        how: Pattern | str = session or "date"
        if how not in ("date", "number", "none"):
            how = Pattern.parse(str(how), "study_date")
        return cls(None if subject is None else Pattern.parse(subject, "patient_id"), how)


def assign_labels(
    rows: Iterable[Row], labelling: Labelling = Labelling(), known: Mapping[str, str] | None = None
) -> None:
    """Fill ``subject`` and ``session`` of all rows; a row that can get no safe label is refused by name.

    Parameters
    ----------
    rows
        The table; changed in place.
    labelling
        Rules.
    known
        Labels by patient identifier that go before the rules (those of an anonymisation key).
    """
    table = list(rows)
    for row in table:
        row.subject, reason = _subject(row.source, labelling, known or {})
        if reason:
            refuse(row, reason)
    _refuse_shared_labels(table)
    if labelling.session != "none":
        _sessions(table, labelling)


def refuse(row: Row, reason: str) -> None:
    """Take a row out of the conversion, and say why; it can come back with a label."""
    row.refused_as = row.refused_as or (row.type, row.suffix)
    row.type = row.suffix = "skip"
    row.warnings.append(f"refused: {reason}")


def _subject(source: Source, labelling: Labelling, known: Mapping[str, str]) -> tuple[str, str]:
    if source.patient_id in known:
        return known[source.patient_id], ""
    if labelling.subject is not None:
        label = labelling.subject.label(source)
        value = getattr(source, labelling.subject.field)
        return (label, "") if label else ("", f"the subject pattern does not match {value!r}")
    for name, value in (("patient ID", source.patient_id), ("patient name", source.patient_name)):
        if _HOSTILE.search(value):
            return "", f"{name} {value!r} looks like a path; name the subject with --subject-pattern or a mapping"
        if label_of(value):
            return label_of(value), ""
    return "", "neither patient ID nor name; name the subject with --subject-pattern or a mapping"


def _refuse_shared_labels(rows: list[Row]) -> None:
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.subject:
            patients[row.subject.casefold()].add(row.source.patient_id)
    for row in rows:
        shared = patients.get(row.subject.casefold(), set())
        if row.subject and len(shared) > 1:
            names = " and ".join(repr(name) for name in sorted(shared))
            refuse(row, f"patients {names} would both become sub-{row.subject}; use --subject-pattern or a mapping")
            row.subject = ""


def _sessions(rows: list[Row], labelling: Labelling) -> None:
    studies: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for row in rows:
        source = row.source
        own = studies[_person(row)]
        own[source.study_uid] = min(own.get(source.study_uid, ("9", "9")), (source.study_date, source.study_time))
    for row in rows:
        own = studies[_person(row)]
        how = labelling.session
        if isinstance(how, Pattern):
            label = how.label(row.source)
            if label is None:
                refuse(row, f"the session pattern does not match {getattr(row.source, how.field)!r}")
            row.session = label or ""
        elif how == "number":
            order = sorted(own, key=lambda uid: (own[uid], uid))
            row.session = f"{order.index(row.source.study_uid) + 1:02d}"
        else:
            row.session = _session_of_date(row.source, own)


def _person(row: Row) -> str:
    """The subject, or who it is if there is no label yet."""
    return row.subject or f"patient {row.source.patient_id}"


def _session_of_date(source: Source, studies: Mapping[str, tuple[str, str]]) -> str:
    """The date; two studies of one day are told apart by their time."""
    date, time = studies[source.study_uid]
    same_day = sorted(uid for uid, (other, _) in studies.items() if other == date)
    if len(same_day) == 1:
        return label_of(date)
    times = {studies[uid][1][:4] for uid in same_day}
    tail = f"t{time[:4]}" if len(times) == len(same_day) else f"n{same_day.index(source.study_uid) + 1}"
    return label_of(date + tail)


def raw_name(entities: Mapping[str, str], suffix: str) -> str:
    """File name without extension; like a BIDS name, with the unofficial entity ``coil`` before ``part``.

    Raises
    ------
    InputError
        If a label holds anything but letters and digits.
    """
    ordered = in_order({name: label for name, label in entities.items() if label})
    if "coil" in ordered:
        coil = ordered.pop("coil")
        tail = {name: ordered.pop(name) for name in ("part",) if name in ordered}
        ordered = {**ordered, "coil": coil, **tail}
    for name, label in {**ordered, "suffix": suffix}.items():
        if not is_label(label):
            raise InputError(f"{name}: expected letters and digits, found {label!r}")
    return "_".join([*(f"{SHORT_NAMES.get(name, name)}-{label}" for name, label in ordered.items()), suffix])


def padded(number: int, largest: int) -> str:
    """``number`` with leading zeros, at least two digits.

    >>> padded(3, 12), padded(7, 128)
    ('03', '007')
    """
    return f"{number:0{max(2, len(str(largest)))}d}"
