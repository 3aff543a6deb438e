"""Which of the scanner's DICOM files says whose a map is, and to which study it belongs.

A map in the study of another patient is the worst that an export can do. A study is therefore only taken if a series
or study identifier in the sidecar of the images names it, if the label of the subject (and the date in the label of
the session) is that which the conversion gives to its patient, or if the map was exported alone and there is no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmxt.convert.headers import Source
from qsmxt.convert.index import build_index
from qsmxt.convert.table import label_of
from qsmxt.errors import InputError, MissingInputError


@dataclass
class Study:
    """One study of a DICOM tree; ``path`` is the first of its files."""

    uid: str
    path: Path
    patient_id: str = ""
    patient_name: str = ""
    date: str = ""
    series: set[str] = field(default_factory=set)

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.patient_id or 'unnamed'} of {self.date or 'unknown date'}"


def find_studies(path: Path, workers: int | None = None) -> list[Study]:
    """All studies with MR images in a file or below a folder, in the order of their files.

    Raises
    ------
    MissingInputError
        If there is nothing at ``path``.
    InputError
        If there is no MR image.
    """
    if not path.exists():
        raise MissingInputError(f"source DICOM: expected a file or a folder, found nothing at {path}")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    sources = {id(f.source): f.source for f in build_index(files, workers=workers).frames}.values()
    studies: dict[tuple[str, str], Study] = {}
    for source in sources:
        if source.study_uid:
            studies.setdefault((source.study_uid, source.patient_id), _study(source)).series.add(source.series_uid)
    if not studies:
        raise InputError(f"source DICOM: expected an MR image with a study, found none in {path}")
    return list(studies.values())


def _study(source: Source) -> Study:
    return Study(
        source.study_uid, Path(source.path), source.patient_id, source.patient_name, source.study_date or ""
    )  # fmt: skip


def choose_study(
    studies: Sequence[Study],
    facts: Iterable[Mapping[str, Any]],
    subject: str,
    session: str | None = None,
    *,
    alone: bool = False,
) -> Study:
    """The study that a map belongs to.

    Parameters
    ----------
    studies
        What there is.
    facts
        Sidecars of the images that the map was made of.
    subject, session
        Labels of the map.
    alone
        Whether the only study may be taken if nothing contradicts it.

    Raises
    ------
    InputError
        If no study, or more than one, can be the right one.
    """
    known = list(facts)
    for key, owned in (("StudyInstanceUID", lambda s: {s.uid}), ("SeriesInstanceUID", lambda s: s.series)):
        wanted = {str(one[key]) for one in known if one.get(key)}
        found = [study for study in studies if wanted & owned(study)]
        if len(found) == 1:
            return found[0]
        if wanted and not found:
            raise _not_found(studies, subject, session, "none of the study that its sidecar names")
    mine = [s for s in studies if subject in (label_of(s.patient_id), label_of(s.patient_name))]
    same_day = [s for s in mine if session and s.date and session.startswith(s.date)]
    for candidates in (same_day, mine if not same_day else []):
        if len(candidates) == 1:
            return candidates[0]
    if alone and len(studies) == 1:
        return studies[0]
    raise _not_found(studies, subject, session, f"{len(mine)} studies of a patient of that label")


def _not_found(studies: Sequence[Study], subject: str, session: str | None, found: str) -> InputError:
    name = f"sub-{subject}" + (f", ses-{session}" if session else "")
    there = "; ".join(study.title for study in studies[:5]) + (" ..." if len(studies) > 5 else "")
    return InputError(
        f"source DICOM: expected one study of {name}, found {found} (there is: {there}); "
        "give the folder of that study, or leave it out"
    )
