"""The table of a conversion: one row for every series component, from tags to BIDS entities.

A row says what the scanner wrote and what will become of it. Classification fills it, a mapping file or a person
may change it, the plan is made from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from qsmxt.convert.headers import Source
from qsmxt.convert.volumes import Volume
from qsmxt.errors import InputError

#: What can become of a row.
TYPES = ("mag", "phase", "real", "imag", "T1w", "fieldmap", "extra", "skip")
#: BIDS suffixes that each type may have; the first is what is meant if nothing else is said.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "mag": ("MEGRE", "T2starw", "MESE", "MP2RAGE"),
    "phase": ("MEGRE", "T2starw", "MP2RAGE"),
    "real": ("MEGRE", "T2starw", "MP2RAGE"),
    "imag": ("MEGRE", "T2starw", "MP2RAGE"),
    "T1w": ("T1w", "UNIT1"),
    "fieldmap": ("fieldmap", "magnitude", "phasediff", "magnitude1", "magnitude2", "phase1", "phase2"),
    "extra": ("extra",),
    "skip": ("skip",),
}
#: Parts of one complex image.
PARTS = ("mag", "phase", "real", "imag")

_LABEL = re.compile(r"[A-Za-z0-9]+")


@dataclass
class Row:
    """One line of the table.

    Attributes
    ----------
    volumes
        Images, one for every echo, coil and repetition.
    type, suffix
        What becomes of it; one of :data:`TYPES` and a BIDS suffix.
    subject, session, acquisition, reconstruction
        Labels; empty for none.
    run, inversion
        Indices from 1; 0 for none.
    component
        What the tags call it: ``mag``, ``phase``, ``real``, ``imag``, ``fieldmap``, ``velocity`` or ``""``.
    combined
        False if it holds single receive elements.
    group
        Rows of the same acquisition share this number.
    warnings
        In words, for the table and the report.
    refused_as
        Type and suffix before the row was refused for lack of a safe label; it gets them back with a label.
    """

    volumes: list[Volume] = field(repr=False)
    type: str = "skip"
    suffix: str = "skip"
    subject: str = ""
    session: str = ""
    acquisition: str = ""
    reconstruction: str = ""
    run: int = 0
    inversion: int = 0
    component: str = ""
    combined: bool = True
    group: int = 0
    warnings: list[str] = field(default_factory=list)
    refused_as: tuple[str, str] | None = None

    @property
    def source(self) -> Source:
        """Header of the first file."""
        return self.volumes[0].source

    @property
    def image_type(self) -> tuple[str, ...]:
        """Values of Image Type."""
        return self.volumes[0].first.image_type

    @property
    def echo_times(self) -> list[float]:
        """Distinct echo times, ascending, s."""
        return sorted({volume.echo_time for volume in self.volumes if volume.echo_time is not None})

    @property
    def coils(self) -> list[str]:
        """Distinct receive elements, in natural order; one if combined."""
        return sorted({volume.first.coil for volume in self.volumes}, key=natural)

    @property
    def repetitions(self) -> int:
        """How often the volume was measured."""
        return max(volume.repetitions for volume in self.volumes)

    @property
    def inversion_time(self) -> float | None:
        """Inversion time, s."""
        return self.volumes[0].first.inversion_time

    @property
    def slices(self) -> int:
        """Slices of the most complete volume."""
        return max(len(volume.frames) for volume in self.volumes)

    @property
    def images(self) -> int:
        """Number of image planes."""
        return sum(len(volume.frames) for volume in self.volumes)

    @property
    def is_gradient_echo(self) -> bool:
        """Whether the sequence forms gradient echoes and is not an echo-planar one."""
        sequence = self.source.scanning_sequence
        return "SE" not in sequence and "EP" not in sequence and ("GR" in sequence or not sequence or "RM" in sequence)

    @property
    def title(self) -> str:
        """Name for messages: series number, description and component."""
        source = self.source
        return f"series {source.series_number} {source.series_description or source.protocol!r} [{self.component}]"

    def edited(self, **changes: object) -> Row:
        """A checked copy with some cells changed.

        Raises
        ------
        InputError
            If a cell cannot hold the value.
        """
        if self.refused_as is not None and changes.get("subject"):
            kind, suffix = self.refused_as
            earlier = {} if "type" in changes else {"type": kind, "suffix": suffix}
            changes = {**earlier, **changes, "refused_as": None}
            changes["warnings"] = [text for text in self.warnings if not text.startswith("refused:")]
        row = replace(self, **changes)  # type: ignore[arg-type]
        if "type" in changes and "suffix" not in changes and row.suffix not in SUFFIXES.get(row.type, ()):
            several = len(self.echo_times) > 1 or row.type not in PARTS
            row.suffix = SUFFIXES.get(row.type, ("",))[0] if several else "T2starw"
        check(row)
        return row


def check(row: Row) -> None:
    """Raise :class:`InputError` if a cell of ``row`` holds what it cannot."""
    if row.type not in TYPES:
        raise InputError(f"type: expected one of {', '.join(TYPES)}, found {row.type!r}")
    if row.suffix not in SUFFIXES[row.type]:
        raise InputError(f"suffix: expected one of {', '.join(SUFFIXES[row.type])}, found {row.suffix!r}")
    for name in ("subject", "session", "acquisition", "reconstruction"):
        label = getattr(row, name)
        if label and not is_label(label):
            raise InputError(f"{name}: expected letters and digits, found {label!r}")
    for name in ("run", "inversion"):
        if getattr(row, name) < 0:
            raise InputError(f"{name}: expected 0 (none) or more, found {getattr(row, name)}")
    if row.type != "skip" and not row.subject:
        raise InputError(f"subject: expected a label, found none for {row.title}")


def is_label(text: str) -> bool:
    """Whether ``text`` can be a label of a raw BIDS dataset: letters and digits only."""
    return _LABEL.fullmatch(text) is not None


def label_of(text: str) -> str:
    """``text`` without everything that a label cannot hold.

    >>> label_of("GRE_QSM 0.7 mm")
    'GREQSM07mm'
    """
    return "".join(_LABEL.findall(text))


def natural(text: str) -> list[tuple[int, str]]:
    """Key that sorts ``H2`` before ``H10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
