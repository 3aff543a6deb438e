"""From the table to files: what is made of which volumes, before anything is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from qsmxt.convert.naming import padded, raw_name
from qsmxt.convert.table import PARTS, Row, label_of
from qsmxt.convert.volumes import Volume
from qsmxt.errors import InputError

#: Suffixes whose files are numbered by echo even if there is only one.
_ECHO_REQUIRED = ("MEGRE", "MESE")


@dataclass
class Piece:
    """What is known of one echo of one receive element: a volume for every part that the scanner wrote."""

    echo_time: float | None
    coil: int
    volumes: dict[str, Volume] = field(default_factory=dict)
    outputs: dict[str, PurePosixPath] = field(default_factory=dict)


@dataclass
class Unit:
    """Files that are made together or not at all: one measurement of one acquisition.

    Attributes
    ----------
    name
        For messages and progress.
    rows
        Lines of the table that it is made from.
    pieces
        One for every echo and coil. ``outputs`` are paths without extension, relative to the dataset.
    corrected
        Whether real and imaginary part become magnitude and phase.
    """

    name: str
    rows: list[Row]
    pieces: list[Piece]
    corrected: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def subject(self) -> str:
        """Label of the subject."""
        return self.rows[0].subject

    @property
    def session(self) -> str:
        """Label of the session, or empty."""
        return self.rows[0].session

    @property
    def type(self) -> str:
        """``part``, ``T1w``, ``fieldmap`` or ``extra``."""
        return "part" if self.rows[0].type in PARTS else self.rows[0].type

    @property
    def outputs(self) -> list[PurePosixPath]:
        """Paths without extension of all files."""
        return [path for piece in self.pieces for path in piece.outputs.values()]

    def existing(self, dataset: Path, outputs: Iterable[PurePosixPath] | None = None) -> list[Path]:
        """Files of this unit (or ``outputs``, without extension) that the dataset already has."""
        endings = (".nii.gz", ".nii", ".json")
        chosen = self.outputs if outputs is None else outputs
        return [path for out in chosen for e in endings if (path := dataset / f"{out}{e}").exists()]


def make_plan(rows: Iterable[Row]) -> list[Unit]:
    """Units of all rows that are not skipped, in the order of the table.

    Raises
    ------
    InputError
        If two rows would be written to the same file.
    """
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        if row.type != "skip":
            groups[_unit_key(row)].append(row)
    units = [unit for members in groups.values() for unit in _units(members)]
    _check_unique(units)
    return [unit for unit in units if unit.pieces or unit.warnings]


def _unit_key(row: Row) -> Hashable:
    kind = "part" if row.type in PARTS else row.type
    own: Hashable = row.suffix if kind in ("part", "T1w") else None
    if kind == "extra":
        own = (row.source.series_uid, row.component, id(row))
    return (
        row.subject, row.session, row.acquisition, row.reconstruction, row.run, row.inversion, kind, own, row.combined,
    )  # fmt: skip


def _units(rows: list[Row]) -> list[Unit]:
    repetitions = max(row.repetitions for row in rows)
    return [_unit(rows, repetition, repetitions) for repetition in range(1, repetitions + 1)]


def _unit(rows: list[Row], repetition: int, repetitions: int) -> Unit:
    run = rows[0].run
    if repetitions > 1:
        run = (max(run, 1) - 1) * repetitions + repetition
    echoes = _echoes(rows)
    coils = sorted({coil for row in rows for coil in row.coils}) if not rows[0].combined else [""]
    pieces: dict[tuple[int, int], Piece] = {}
    for row in rows:
        order = row.coils
        for volume in row.volumes:
            if volume.repetition != repetition and volume.repetitions > 1:
                continue
            coil = order.index(volume.first.coil) + 1 if not row.combined else 0
            echo = 0 if volume.echo_time is None or row.type == "fieldmap" else _nearest(echoes, volume.echo_time)
            if row.type == "fieldmap":
                part = _fieldmap_part(row, volume)
            else:
                part = row.type if row.type in PARTS else row.suffix
            piece = pieces.setdefault((echo, coil), Piece(volume.echo_time, coil))
            if part in piece.volumes:
                raise InputError(
                    f"{row.title}: would be the {part} of an echo that another row already is; "
                    "give one of them another acquisition, reconstruction or run"
                )
            piece.volumes[part] = volume
    unit = Unit("", rows, [pieces[key] for key in sorted(pieces)])
    unit.corrected = rows[0].source.vendor == "ge" and {"real", "imag"} <= {row.type for row in rows}
    _drop_incomplete(unit)
    _name(unit, run, echoes, len(coils))
    return unit


def _echoes(rows: list[Row]) -> list[float]:
    times: list[float] = []
    for time in sorted(time for row in rows for time in row.echo_times):
        if not times or time - times[-1] > 1e-5:
            times.append(time)
    return times


def _nearest(times: list[float], time: float) -> int:
    return min(range(len(times)), key=lambda i: abs(times[i] - time)) + 1


def _fieldmap_part(row: Row, volume: Volume) -> str:
    if row.suffix in ("magnitude1", "phase1", "magnitude2", "phase2") and len(row.echo_times) > 1:
        return f"{row.suffix[:-1]}{_nearest(row.echo_times, volume.echo_time or 0.0)}"
    return row.suffix


def _drop_incomplete(unit: Unit) -> None:
    """Leave out echoes of which a slice or a part is missing, and say so."""
    wanted = {part for piece in unit.pieces for part in piece.volumes}
    kept = []
    for piece in unit.pieces:
        gaps = [f"{v.missing} slices of its {part}" for part, v in piece.volumes.items() if v.missing]
        absent = [f"its {part}" for part in sorted(wanted - set(piece.volumes))] if unit.type == "part" else []
        slices = {len(volume.frames) for volume in piece.volumes.values()}
        if not gaps and not absent and len(slices) > 1:
            gaps = [f"slices of one part (the parts have {' and '.join(map(str, sorted(slices)))})"]
        if gaps or absent:
            time = "" if piece.echo_time is None else f" at {piece.echo_time * 1e3:g} ms"
            unit.warnings.append(f"the echo{time} is left out: {', '.join(gaps + absent)} missing")
        else:
            kept.append(piece)
    unit.pieces = kept


def _name(unit: Unit, run: int, echoes: list[float], coils: int) -> None:
    row = unit.rows[0]
    folder = PurePosixPath(f"sub-{row.subject}", *([f"ses-{row.session}"] if row.session else []))
    entities = {
        "subject": row.subject, "session": row.session, "acquisition": row.acquisition,
        "run": padded(run, run) if run else "",
    }  # fmt: skip
    if unit.type == "extra":
        unit.name = f"{row.title} (extra)"
        _name_extra(unit, PurePosixPath("sourcedata/extra") / folder, entities)
        return
    if unit.type == "fieldmap":
        unit.name = raw_name(entities, "fieldmap")
        for piece in unit.pieces:
            piece.outputs = {part: folder / "fmap" / raw_name(entities, part) for part in piece.volumes}
        return
    entities["reconstruction"] = row.reconstruction
    entities["inversion"] = padded(row.inversion, row.inversion) if row.inversion else ""
    unit.name = raw_name(entities, row.suffix)
    for piece in unit.pieces:
        numbered = dict(entities)
        if row.suffix in _ECHO_REQUIRED or (len(echoes) > 1 and row.suffix != "UNIT1"):
            numbered["echo"] = padded(_nearest(echoes, piece.echo_time or 0.0), len(echoes))
        if piece.coil:
            numbered["coil"] = padded(piece.coil, coils)
        parts = ("mag", "phase") if unit.corrected else tuple(piece.volumes)
        for part in parts:
            split = part in PARTS and (len(parts) > 1 or part != "mag")
            name = raw_name({**numbered, "part": part if split else ""}, row.suffix)
            piece.outputs[part] = folder / "anat" / name


def _name_extra(unit: Unit, folder: PurePosixPath, entities: dict[str, str]) -> None:
    row = unit.rows[0]
    several_coils = len({piece.coil for piece in unit.pieces}) > 1
    for number, piece in enumerate(unit.pieces, start=1):
        numbered = {**entities, "series": f"{row.source.series_number:04d}"}
        if len(row.echo_times) > 1:
            numbered["echo"] = padded(_nearest(row.echo_times, piece.echo_time or 0.0), len(row.echo_times))
        if several_coils:
            numbered["coil"] = padded(number, len(unit.pieces))
        label = label_of(row.component or row.source.series_description) or "image"
        piece.outputs = {part: folder / raw_name(numbered, label) for part in piece.volumes}


def _check_unique(units: list[Unit]) -> None:
    owners: dict[str, Unit] = {}
    for unit in units:
        for path in unit.outputs:
            other = owners.setdefault(str(path).casefold(), unit)
            if other is not unit or unit.outputs.count(path) > 1:
                raise InputError(
                    f"{unit.rows[0].title} and {other.rows[0].title} would both be written to {path}; "
                    "give one of them another acquisition, reconstruction or run in the table"
                )
