"""The files of a raw BIDS dataset besides its images, and images that appear all at once or not at all."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import qsmxt
from qsmxt.bids.atomic import write_json, write_text
from qsmxt.convert.vendor import Image
from qsmxt.errors import InputError, OutputError

#: BIDS version that the datasets follow.
BIDS_VERSION = "1.10.0"
#: Files that BIDS has no name for.
IGNORED = ("*_coil-*",)

_README = """\
# Raw images

Converted from DICOM or NIfTI by qsmxt-convert (QSMxT {version}) with dcm2niix.

Multi-echo gradient echoes are MEGRE (magnitude and phase of every echo). The unit of a phase image stands in its
sidecar: `rad`, or `arbitrary` if the scale could not be told. What was corrected while converting stands there under
`PhaseCorrections` and must not be corrected again. Images that BIDS has no name for lie in `sourcedata/extra`.
Receive elements (`coil-`) are not part of BIDS and are listed in `.bidsignore`.

Please describe the study here: its purpose, the participants, the protocol, and whom to ask.
"""

_PARTICIPANT_COLUMNS = {
    "participant_id": {"Description": "Label of the participant"},
    "age": {"Description": "Age at the first examination", "Units": "year"},
    "sex": {
        "Description": "Sex as entered at the scanner",
        "Levels": {"M": "male", "F": "female", "O": "other"},
    },
}  # fmt: skip


def save_image(path: Path, image: Image) -> Path:
    """Write a NIfTI file whose bytes depend on the image only: no time, no name, no free text in its headers."""
    import nibabel

    header = image.header.copy()
    affine = header.get_best_affine()
    stored = np.asarray(image.stored)
    nifti = nibabel.Nifti1Image(stored, affine, header, dtype=stored.dtype)
    nifti.header.set_data_dtype(stored.dtype)
    nifti.header.set_xyzt_units("mm", "sec")
    for name in ("descrip", "aux_file", "db_name", "intent_name"):
        nifti.header[name] = b""
    nifti.header.set_slope_inter(image.slope, image.intercept)
    content = nifti.to_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream, gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
        packed.write(content)
    return path


def install(pairs: Sequence[tuple[Path, Path]], *, overwrite: bool = False) -> None:
    """Move finished files to their places: all of them, or none if one cannot be moved.

    Parameters
    ----------
    pairs
        Finished file and destination, on one file system.
    overwrite
        Whether files that are there may be replaced.

    Raises
    ------
    OutputError
        If a file is there and must not be replaced, or cannot be moved.
    """
    moved: list[tuple[Path, Path]] = []
    saved: list[tuple[Path, Path]] = []
    try:
        for finished, target in pairs:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                if not overwrite:
                    raise OutputError(f"{target}: is there already; give --overwrite to replace it")
                backup = finished.with_name(f"{finished.name}.replaced")
                target.replace(backup)
                saved.append((backup, target))
            finished.replace(target)
            moved.append((finished, target))
    except OSError as error:
        for finished, target in moved:
            with suppress(OSError):
                target.replace(finished)
        for backup, target in saved:
            with suppress(OSError):
                backup.replace(target)
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{error.filename}: cannot be written ({error.strerror})") from error


def check_inside(dataset: Path, relative: str | os.PathLike[str]) -> Path:
    """The path below ``dataset``, also after links are followed.

    Raises
    ------
    OutputError
        If it would lie elsewhere.
    """
    path = dataset / relative
    if not path.parent.resolve().is_relative_to(dataset.resolve()):
        raise OutputError(f"{path}: lies outside the dataset {dataset}; a link or a name leads out of it")
    return path


def describe(dataset: Path, name: str | None = None, ignored: Iterable[str] = ()) -> list[Path]:
    """Write the files that describe the dataset, where they are missing.

    Parameters
    ----------
    dataset
        Its folder.
    name
        Of the dataset; default: that of the folder.
    ignored
        Patterns of files that the validator must not look at, besides :data:`IGNORED`.
    """
    written = []
    description = dataset / "dataset_description.json"
    if not description.exists():
        content = {
            "Name": name or dataset.resolve().name,
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "GeneratedBy": [{"Name": "QSMxT", "Version": qsmxt.__version__, "Description": "qsmxt-convert"}],
        }
        written.append(write_json(description, content))
    if not any((dataset / n).exists() for n in ("README", "README.md", "README.rst", "README.txt")):
        written.append(write_text(dataset / "README.md", _README.format(version=qsmxt.__version__)))
    ignore = dataset / ".bidsignore"
    lines = ignore.read_text().splitlines() if ignore.exists() else []
    missing = [pattern for pattern in (*IGNORED, *sorted(ignored)) if pattern not in lines]
    if missing:
        written.append(write_text(ignore, "\n".join([*lines, *missing]) + "\n"))
    if (dataset / "participants.tsv").exists() and not (dataset / "participants.json").exists():
        written.append(write_json(dataset / "participants.json", _PARTICIPANT_COLUMNS))
    return written


def add_participants(dataset: Path, people: Mapping[str, Mapping[str, str]]) -> Path | None:
    """Add participants that ``participants.tsv`` does not have; what it has is kept as it is.

    Nothing is written for nobody: a table without lines would contradict the folders.
    """
    path = dataset / "participants.tsv"
    if not people:
        return None
    columns, rows = read_tsv(path) if path.exists() else (["participant_id", "age", "sex"], [])
    known = {row.get("participant_id") for row in rows}
    for subject, facts in sorted(people.items()):
        if f"sub-{subject}" not in known:
            rows.append({"participant_id": f"sub-{subject}", **facts})
    rows.sort(key=lambda row: row.get("participant_id", ""))
    return write_tsv(path, columns, rows)


def add_scans(dataset: Path, subject: str, session: str, times: Mapping[str, str]) -> Path:
    """Add images (path relative to the folder of the session, acquisition time) to the table of a session."""
    folder = dataset / f"sub-{subject}"
    stem = f"sub-{subject}"
    if session:
        folder, stem = folder / f"ses-{session}", f"{stem}_ses-{session}"
    path = folder / f"{stem}_scans.tsv"
    columns, rows = read_tsv(path) if path.exists() else (["filename", "acq_time"], [])
    by_name = {row["filename"]: row for row in rows if (folder / row["filename"]).exists()}
    for name, time in times.items():
        by_name[name] = {**by_name.get(name, {}), "filename": name, "acq_time": time or "n/a"}
    return write_tsv(path, columns, [by_name[name] for name in sorted(by_name)])


def read_tsv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a table.

    Raises
    ------
    InputError
        If it has no header, or a row with another number of cells.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [line for line in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a table in UTF-8 with tabs, found {error}; save it as such") from None
    if not lines:
        raise InputError(f"{path}: expected a table with a header, found an empty file")
    columns = lines[0]
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(columns):
            raise InputError(f"{path}: line {number}: expected {len(columns)} cells, found {len(line)}")
    return columns, [dict(zip(columns, line, strict=True)) for line in lines[1:]]


def write_tsv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a table; missing and empty cells become ``n/a``, tabs and line ends a space."""
    text = io.StringIO()
    for cells in (columns, *([row.get(column) for column in columns] for row in rows)):
        text.write("\t".join(" ".join(str("n/a" if c in (None, "") else c).split()) for c in cells) + "\n")
    return write_text(path, text.getvalue())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises
    ------
    InputError
        If the file is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: expected JSON, found something else ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found a {type(content).__name__}")
    return content
