"""What is processed: one unit for every combination of BIDS entities except ``echo`` and ``part``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmxt.bids.entities import stem


@dataclass(frozen=True)
class EchoFiles:
    """The images of one echo.

    Attributes
    ----------
    echo_time
        Echo time, s.
    phase, magnitude, real, imag
        Files, ``None`` where there is none; either ``phase`` or both of ``real`` and ``imag`` are given.
    metadata
        Sidecar of the phase (or real) image, merged after the inheritance principle.
    """

    echo_time: float
    phase: Path | None = None
    magnitude: Path | None = None
    real: Path | None = None
    imag: Path | None = None
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)

    def files(self) -> tuple[Path, ...]:
        """All files of this echo."""
        return tuple(path for path in (self.phase, self.magnitude, self.real, self.imag) if path is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        paths = {part: _text(getattr(self, part)) for part in ("phase", "magnitude", "real", "imag")}
        return {"echo_time": self.echo_time, **paths, "metadata": self.metadata}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EchoFiles:
        """Inverse of :meth:`to_dict`."""
        paths = {part: _path(values.get(part)) for part in ("phase", "magnitude", "real", "imag")}
        return cls(float(values["echo_time"]), **paths, metadata=dict(values.get("metadata", {})))


@dataclass(frozen=True)
class ProcessingUnit:
    """One acquisition to reconstruct.

    Attributes
    ----------
    entities
        Labels by long entity name, in BIDS order, without ``echo`` and ``part``.
    suffix, datatype
        Of the source files, such as ``MEGRE`` and ``anat``.
    echoes
        Ascending in echo time.
    field_strength
        Strength of the main field, T.
    t1w
        T1-weighted images of the subject: those of the same session first.
    distinct
        False if another acquisition of the subject has the same entities under another suffix, so that the
        names of derivatives must carry the suffix.
    """

    entities: dict[str, str] = field(hash=False)
    suffix: str = "MEGRE"
    datatype: str = "anat"
    echoes: tuple[EchoFiles, ...] = ()
    field_strength: float = 3.0
    t1w: tuple[Path, ...] = ()
    distinct: bool = True

    @property
    def name(self) -> str:
        """Name of the acquisition, such as ``sub-1_ses-a_acq-x_run-1_MEGRE``."""
        return stem(self.entities, self.suffix)

    @property
    def subject(self) -> str:
        """Label of the subject, without ``sub-``."""
        return self.entities["subject"]

    @property
    def session(self) -> str | None:
        """Label of the session, without ``ses-``, if there is one."""
        return self.entities.get("session")

    def files(self) -> tuple[Path, ...]:
        """All source images, echo by echo (without T1w)."""
        return tuple(path for echo in self.echoes for path in echo.files())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "entities": dict(self.entities), "suffix": self.suffix, "datatype": self.datatype,
            "echoes": [echo.to_dict() for echo in self.echoes], "field_strength": self.field_strength,
            "t1w": [str(path) for path in self.t1w], "distinct": self.distinct,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProcessingUnit:
        """Inverse of :meth:`to_dict`."""
        return cls(
            entities=dict(values["entities"]), suffix=values["suffix"], datatype=values["datatype"],
            echoes=tuple(EchoFiles.from_dict(echo) for echo in values["echoes"]),
            field_strength=float(values["field_strength"]),
            t1w=tuple(Path(path) for path in values.get("t1w", ())),
            distinct=bool(values.get("distinct", True)),
        )  # fmt: skip


@dataclass(frozen=True)
class Rejected:
    """An acquisition that cannot be processed, and why."""

    name: str
    subject: str
    error: str


@dataclass(frozen=True)
class Selection:
    """What a query found."""

    units: tuple[ProcessingUnit, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
