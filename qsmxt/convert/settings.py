"""What a conversion is told, what it finds, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from qsmxt.convert.anonymisation import Key
from qsmxt.convert.archives import Problem
from qsmxt.convert.naming import Labelling
from qsmxt.convert.table import Row

#: Called with a sentence about what is being done, the number of steps done, and of all steps.
Progress = Callable[[str, int, int], None]


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
    ignored
        Patterns of files that a validator must not look at.
    """

    written: list[Path] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
