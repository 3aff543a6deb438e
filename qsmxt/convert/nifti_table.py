r"""The table of NIfTI and PAR/REC volumes: one line a volume, filled from names, sidecars, headers and values.

Cells are filled in this order, and what is filled is not changed any more: PAR headers, a table filled by hand, the
user's regular expressions, values given on the command line, names of BIDS and dcm2niix, sidecars, words in names, the
range of the values. What is still missing then is an error that names the cell, or a question.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.convert.dataset import read_json, read_tsv, write_tsv
from qsmxt.convert.table import PARTS, is_label, label_of
from qsmxt.errors import InputError, ParameterError

#: Columns of the table, with the names of the cells.
COLUMNS = {
    "path": "path", "volume": "volume", "sub": "subject", "ses": "session", "acq": "acquisition",
    "rec": "reconstruction", "run": "run", "inv": "inversion", "echo": "echo", "part": "part", "suffix": "suffix",
    "EchoTime": "echo_time", "MagneticFieldStrength": "field_strength",
}  # fmt: skip
SUFFIXES = ("MEGRE", "T2starw", "MESE", "MP2RAGE", "T1w", "UNIT1", "skip")
_INTEGERS = ("volume", "run", "inversion", "echo")
_FLOATS = ("echo_time", "field_strength")
_PHASE_SUFFIXES = ("MEGRE", "T2starw", "MP2RAGE")

_BIDS = {
    "sub": r"(?:^|[/_])sub-([A-Za-z0-9]+)",
    "ses": r"(?:^|[/_])ses-([A-Za-z0-9]+)",
    "acq": r"_acq-([A-Za-z0-9]+)",
    "rec": r"_rec-([A-Za-z0-9]+)",
    "run": r"_run-(\d+)",
    "inv": r"_inv-(\d+)",
    "echo": r"_echo-(\d+)",
    "part": r"_part-(mag|phase|real|imag)",
    "suffix": r"_(MEGRE|T2starw|MESE|MP2RAGE|T1w|UNIT1)\.",
}
#: Regular expressions on the path, by column; the first group is the value.
PRESETS: dict[str, dict[str, str]] = {
    "bids": _BIDS,
    "qsmxt": {
        **_BIDS,
        "EchoTime": r"_TE(\d*\.?\d+)(?=[_.])",
        "MagneticFieldStrength": r"_B(\d+\.\d+|[1-9]\d?)(?=[_.])",
    },
    "dcm2niix": {
        "echo": r"_e(\d+)(?:_|\.|[a-z]?\.)",
        "part": r"_(ph|real|imaginary)(?:[a-z])?\.",
    },
    "words": {
        "sub": r"(?:^|[/_-])(?:sub(?:ject)?|pat(?:ient)?|vol)[_-]?([A-Za-z0-9]*\d+)",
        "echo": r"(?:^|[/_.-])(?:echo|e)[_-]?(\d+)",
        "part": r"(?i)(?:^|[/_.-]|\d)(magnitude|mag|phase|pha|real|imaginary|imag)(?=[_./-]|\d|$)",
        "EchoTime": r"(?i)_TE[_-]?(\d*\.\d+)",
        "suffix": r"(?i)(?:^|[/_-])(T1w|MPRAGE)",
    },
}  # fmt: skip
_PARTS_BY_NAME = {
    "magnitude": "mag", "mag": "mag", "phase": "phase", "pha": "phase", "ph": "phase", "real": "real",
    "imaginary": "imag", "imag": "imag",
}  # fmt: skip
_PARTS_BY_IMAGE_TYPE = {
    "M": "mag", "MAGNITUDE": "mag", "P": "phase", "PHASE": "phase", "PHASE MAP": "phase", "R": "real", "REAL": "real",
    "I": "imag", "IMAGINARY": "imag",
}  # fmt: skip


@dataclass
class NiftiRow:
    """One volume.

    Attributes
    ----------
    path
        Relative to the source folder.
    volume
        Number of the volume in its file, from 0.
    subject, session, acquisition, reconstruction, part, suffix
        Labels; empty if not known.
    run, inversion, echo
        0 if none.
    echo_time, field_strength
        s and T; ``None`` if not known.
    sidecar
        Content of the JSON file beside it.
    shape
        Of the volume.
    """

    path: str
    volume: int = 0
    subject: str = ""
    session: str = ""
    acquisition: str = ""
    reconstruction: str = ""
    run: int = 0
    inversion: int = 0
    echo: int = 0
    part: str = ""
    suffix: str = ""
    echo_time: float | None = None
    field_strength: float | None = None
    sidecar: dict[str, Any] = field(default_factory=dict, repr=False)
    shape: tuple[int, ...] = ()
    volumes: int = 1

    @property
    def title(self) -> str:
        """Name for messages."""
        return self.path if self.volumes == 1 else f"{self.path}, volume {self.volume}"

    def fill(self, column: str, value: object) -> None:
        """Set a cell if it is still empty.

        Raises
        ------
        InputError
            If the column is unknown or cannot hold the value.
        """
        if column not in COLUMNS:
            raise InputError(f"column: expected one of {', '.join(COLUMNS)}, found {column!r}")
        cell = COLUMNS[column]
        if getattr(self, cell) in ("", None, 0) and value not in ("", None, "n/a"):
            setattr(self, cell, _cell(cell, value, self.path))

    def edited(self, **changes: object) -> NiftiRow:
        """A checked copy with some cells (by column) changed; an empty value empties a cell.

        Raises
        ------
        InputError
            If a column is unknown or cannot hold the value.
        """
        empty = NiftiRow(self.path)
        row = replace(self)
        for column, value in changes.items():
            if column not in COLUMNS or column in ("path", "volume"):
                raise InputError(f"column: expected one of {', '.join(COLUMNS)}, found {column!r}")
            cell = COLUMNS[column]
            bare = str(value).removeprefix("sub-").removeprefix("ses-")
            setattr(row, cell, _cell(cell, bare, self.path) if bare else getattr(empty, cell))
        return row


def _cell(cell: str, value: object, path: str) -> object:
    text = str(value).strip()
    try:
        if cell in _INTEGERS:
            return int(text)
        if cell in _FLOATS:
            number = float(text)
            if not np.isfinite(number) or number <= 0:
                raise ValueError
            return number
    except ValueError:
        raise InputError(f"{path}: {cell}: expected a positive number, found {text!r}") from None
    if cell == "part":
        part = _PARTS_BY_NAME.get(text.lower())
        if part is None:
            raise InputError(f"{path}: part: expected one of {', '.join(PARTS)}, found {text!r}")
        return part
    if cell == "suffix":
        known = {suffix.lower(): suffix for suffix in SUFFIXES} | {"mprage": "T1w"}
        if text.lower() not in known:
            raise InputError(f"{path}: suffix: expected one of {', '.join(SUFFIXES)}, found {text!r}")
        return known[text.lower()]
    return text if cell == "path" else label_of(text)


def list_volumes(root: Path) -> list[NiftiRow]:
    """All volumes of NIfTI and PAR files below ``root``, with their sidecars; pixels are not read.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    rows = []
    base = root if root.is_dir() else root.parent
    paths = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    for path in paths:
        name = path.name.lower()
        if name.startswith(".") or not name.endswith((".nii", ".nii.gz", ".par")):
            continue
        rows += _volumes_of(path, path.relative_to(base).as_posix())
    return rows


def _volumes_of(path: Path, relative: str) -> list[NiftiRow]:
    import nibabel

    try:
        image: Any = nibabel.load(path)
        shape = tuple(int(n) for n in image.shape)
    except Exception as error:
        raise InputError(
            f"{path}: expected a NIfTI or PAR/REC image, found one that cannot be read ({error})"
        ) from None
    count = int(np.prod(shape[3:])) if len(shape) > 3 else 1
    sidecar_path = path.with_name(re.sub(r"\.nii(\.gz)?$|\.par$", "", path.name, flags=re.IGNORECASE) + ".json")
    sidecar = read_json(sidecar_path) if sidecar_path.exists() else {}
    rows = [NiftiRow(relative, i, sidecar=dict(sidecar), shape=shape[:3], volumes=count) for i in range(count)]
    if name_is_par(relative):
        _fill_from_par(rows, image)
    return rows


def name_is_par(path: str) -> bool:
    """Whether a path is that of a Philips PAR file."""
    return path.lower().endswith(".par")


def _fill_from_par(rows: Sequence[NiftiRow], image: Any) -> None:
    header = image.header
    definitions = header.image_defs[header.get_sorted_slice_indices()]
    slices = image.shape[2]
    for row in rows:
        first = definitions[row.volume * slices]
        part = {0: "mag", 1: "real", 2: "imag", 3: "phase"}.get(int(first["image_type_mr"]), "")
        velocity = part == "phase" and int(first["scanning sequence"]) == 4
        row.fill("suffix", "skip" if velocity or not part else "")
        row.fill("part", part)
        row.fill("echo", int(first["echo number"]))
        row.fill("EchoTime", float(first["echo_time"]) / 1e3 or None)
        if int(header.general_info["max_dynamics"]) > 1:
            row.fill("run", int(first["dynamic scan number"]))
        row.sidecar.setdefault("Manufacturer", "Philips")
        row.sidecar.setdefault("RepetitionTime", float(np.ravel(header.general_info["repetition_time"])[0]) / 1e3)
        row.sidecar.setdefault("FlipAngle", float(first["image_flip_angle"]))


def fill_from_names(rows: Iterable[NiftiRow], patterns: Mapping[str, str]) -> None:
    """Fill cells by regular expressions on the path.

    Raises
    ------
    ParameterError
        If a column is unknown, or an expression is not valid.
    """
    compiled = {}
    for column, expression in patterns.items():
        if column not in COLUMNS or column in ("path", "volume"):
            raise ParameterError(f"pattern: expected one of {', '.join(COLUMNS)}, found {column!r}")
        try:
            compiled[column] = re.compile(expression)
        except re.error as error:
            raise ParameterError(f"pattern: {column}: not a regular expression: {expression!r} ({error})") from None
    for row in rows:
        for column, regular in compiled.items():
            found = regular.search(row.path)
            if found is not None:
                row.fill(column, found.group(1) if regular.groups else found.group(0))


def fill_from_sidecars(rows: Iterable[NiftiRow]) -> None:
    """Fill echo time, field strength and part from the JSON files."""
    for row in rows:
        time = row.sidecar.get("EchoTime")
        if isinstance(time, list) and len(time) == row.volumes:
            time = time[row.volume]
        if isinstance(time, (int, float)):
            row.fill("EchoTime", time)
        if isinstance(row.sidecar.get("MagneticFieldStrength"), (int, float)):
            row.fill("MagneticFieldStrength", row.sidecar["MagneticFieldStrength"])
        if isinstance(row.sidecar.get("EchoNumber"), int) and row.volumes == 1:
            row.fill("echo", row.sidecar["EchoNumber"])
        types = row.sidecar.get("ImageType")
        for value in types[2:] if isinstance(types, list) else ():
            part = _PARTS_BY_IMAGE_TYPE.get(str(value).upper())
            if part:
                row.fill("part", part)


def fill_from_values(rows: Iterable[NiftiRow], root: Path) -> None:
    """Fill the part where it is missing, by the range of the values.

    A volume of one sign is a magnitude; one that fills a known scale of phase is a phase image.
    """
    from qsmxt.bids.phase import SCALE_TOLERANCE, SCALES

    for row in rows:
        if row.part or row.suffix in ("T1w", "UNIT1", "MESE", "skip"):
            continue
        values = load_volume(root, row).values()
        values = values[np.isfinite(values)]
        low, high = float(values.min()), float(values.max())
        symmetric = [scale for scale in SCALES if scale.low < 0 and scale.fits(low, high, SCALE_TOLERANCE)]
        if symmetric:
            row.part = "phase"
        elif low >= 0 and not _is_flat(values):
            row.part = "mag"


def _is_flat(values: np.ndarray) -> bool:
    """Whether values from 0 on are as frequent at the upper end as at the lower: phase, not magnitude."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return True
    ends = np.histogram(values, bins=20, range=(low, high))[0]
    return bool(ends[-1] > 0.25 * max(1, ends[0]))


def fill_from_values_given(rows: Iterable[NiftiRow], values: Mapping[str, str]) -> None:
    """Fill cells with one value for all volumes."""
    for row in rows:
        for column, value in values.items():
            row.fill(column, value)


def fill_echoes(rows: Sequence[NiftiRow], echo_times: Sequence[float] = ()) -> None:
    """Fill echo numbers by echo time or place, echo times by number, and the suffix by the number of echoes.

    Raises
    ------
    ParameterError
        If there are more echoes than echo times.
    """
    groups: dict[tuple[object, ...], list[NiftiRow]] = defaultdict(list)
    for row in rows:
        if row.suffix not in ("skip", "T1w", "UNIT1"):
            groups[(*_acquisition(row), row.part)].append(row)
    for members in groups.values():
        _number_echoes(members)
        if echo_times and max(row.echo for row in members) > len(echo_times):
            raise ParameterError(
                f"echo times: expected at least {max(row.echo for row in members)}, found {len(echo_times)}"
            )
        for row in members:
            if echo_times and row.echo:
                row.fill("EchoTime", echo_times[row.echo - 1])
            row.fill("suffix", "MEGRE" if len(members) > 1 else "T2starw")
    for row in rows:
        if row.suffix in ("T2starw", "T1w", "UNIT1") and sum(_same(r, row) for r in rows) == 1:
            row.echo = 0


def _same(a: NiftiRow, b: NiftiRow) -> bool:
    return (*_acquisition(a), a.part, a.suffix) == (*_acquisition(b), b.part, b.suffix)


def _acquisition(row: NiftiRow) -> tuple[object, ...]:
    return (row.subject, row.session, row.acquisition, row.reconstruction, row.run, row.inversion)


def _number_echoes(rows: list[NiftiRow]) -> None:
    if len({row.echo for row in rows}) == len(rows) and all(row.echo for row in rows):
        return
    if all(row.echo_time for row in rows) and len({row.echo_time for row in rows}) == len(rows):
        rows = sorted(rows, key=lambda row: row.echo_time or 0.0)
    for number, row in enumerate(rows, start=1):
        row.echo = number


def missing_cells(rows: Iterable[NiftiRow]) -> list[tuple[NiftiRow, str]]:
    """Cells that must be filled and are not."""
    found = []
    for row in rows:
        if row.suffix == "skip":
            continue
        needed = ["subject", "suffix"]
        if row.suffix in (*_PHASE_SUFFIXES, ""):
            needed += ["part", "echo_time", "field_strength"]
        if row.suffix in ("MEGRE", "MESE"):
            needed += ["echo", "echo_time"]
        found += [(row, cell) for cell in dict.fromkeys(needed) if not getattr(row, cell)]
    return found


def check_table(rows: Sequence[NiftiRow]) -> list[str]:
    """Everything that is wrong with a filled table, in words; empty if it can be converted."""
    used = [row for row in rows if row.suffix != "skip"]
    names = {cell: column for column, cell in COLUMNS.items()}
    problems = [f"{row.title}: {names[cell]}: missing" for row, cell in missing_cells(rows)]
    for row in used:
        for cell in ("subject", "session", "acquisition", "reconstruction"):
            if getattr(row, cell) and not is_label(getattr(row, cell)):
                problems.append(
                    f"{row.title}: {names[cell]}: expected letters and digits, found {getattr(row, cell)!r}"
                )
        if row.suffix and row.suffix not in SUFFIXES:
            problems.append(f"{row.title}: suffix: expected one of {', '.join(SUFFIXES)}, found {row.suffix!r}")
        if row.echo_time is not None and row.echo_time > 1:
            problems.append(f"{row.title}: EchoTime: expected seconds, found {row.echo_time:g}, which looks like ms")
    return problems + _contradictions(used)


def _contradictions(rows: Sequence[NiftiRow]) -> list[str]:
    problems = []
    seen: dict[tuple[object, ...], NiftiRow] = {}
    times: dict[tuple[object, ...], NiftiRow] = {}
    grids: dict[tuple[object, ...], NiftiRow] = {}
    for row in rows:
        own = (*_acquisition(row), row.suffix)
        twin = seen.setdefault((*own, row.echo, row.part), row)
        if twin is not row:
            problems.append(f"{row.title}: would get the same name as {twin.title}")
        if row.part in PARTS and row.echo_time is not None:
            other = times.setdefault((*own, row.echo), row)
            if other.echo_time is not None and abs(other.echo_time - row.echo_time) > 1e-5:
                problems.append(
                    f"{row.title}: EchoTime {row.echo_time:g} s, but {other.echo_time:g} s in {other.title}"
                )
        first = grids.setdefault(own, row)
        if first.shape != row.shape:
            problems.append(f"{row.title}: shape {row.shape}, but {first.shape} in {first.title}")
        if first.field_strength and row.field_strength and first.field_strength != row.field_strength:
            problems.append(f"{row.title}: MagneticFieldStrength {row.field_strength:g} T differs from {first.title}")
    return problems


def load_volume(root: Path, row: NiftiRow) -> Any:
    """The volume of a row with its stored numbers, as an :class:`~qsmxt.convert.vendor.Image`."""
    import nibabel

    from qsmxt.convert.vendor import Image

    base = root if root.is_dir() else root.parent
    image: Any = nibabel.load(base / row.path)
    if name_is_par(row.path):
        values = np.asarray(image.dataobj, dtype=np.float32).reshape(*image.shape[:3], -1)[..., row.volume]
        return Image(values, 1.0, 0.0, nibabel.Nifti1Image(values, image.affine).header, dict(row.sidecar))
    stored = np.asanyarray(image.dataobj.get_unscaled())
    stored = stored.reshape(*(*stored.shape, 1)[:3], -1)[..., row.volume] if stored.ndim != 3 else stored
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    if not np.isfinite(slope) or slope == 0:
        slope, intercept = 1.0, 0.0
    header = image.header.copy()
    header.set_data_shape(stored.shape)
    return Image(np.ascontiguousarray(stored), slope, intercept, header, dict(row.sidecar))


def save_table(path: Path, rows: Iterable[NiftiRow]) -> Path:
    """Write the table, to be filled by hand or replayed."""
    lines = [{column: getattr(row, cell) for column, cell in COLUMNS.items()} for row in rows]
    for line in lines:
        for column in ("run", "inv", "echo"):
            line[column] = line[column] or ""
    return write_tsv(path, list(COLUMNS), lines)


def fill_from_table(rows: Sequence[NiftiRow], path: Path) -> None:
    """Fill cells from a table that was filled by hand; volumes that it does not list are left out.

    Raises
    ------
    InputError
        If it has unknown columns, or lists a volume that is not there.
    """
    columns, lines = read_tsv(path)
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or "path" not in columns:
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)}, found {unknown or 'no path'}")
    known = {(row.path, row.volume): row for row in rows}
    listed = set()
    for number, line in enumerate(lines, start=2):
        volume = line.get("volume", "0")
        key = (line["path"], int(volume) if volume.isdigit() else 0)
        if key not in known:
            raise InputError(
                f"{path}, line {number}: expected a volume of the source, found {line['path']!r}, {volume}"
            )
        listed.add(key)
        for column, value in line.items():
            if column not in ("path", "volume"):
                known[key].fill(column, value.removeprefix("sub-").removeprefix("ses-"))
    for key, row in known.items():
        if key not in listed:
            row.suffix = "skip"
