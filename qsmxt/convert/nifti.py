"""From NIfTI or PAR/REC files to a raw BIDS dataset."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from qsmxt.bids.atomic import write_json
from qsmxt.convert.archives import Problem
from qsmxt.convert.dataset import add_participants, add_scans, check_inside, describe, install, save_image
from qsmxt.convert.naming import padded, raw_name
from qsmxt.convert.nifti_table import (
    PRESETS,
    NiftiRow,
    check_table,
    fill_echoes,
    fill_from_names,
    fill_from_sidecars,
    fill_from_table,
    fill_from_values,
    fill_from_values_given,
    list_volumes,
    load_volume,
)
from qsmxt.convert.settings import Progress, Report
from qsmxt.convert.sidecar import NEVER
from qsmxt.convert.table import PARTS
from qsmxt.convert.vendor import Image, scale_phases
from qsmxt.errors import InputError, MissingInputError, OutputError, ParameterError, QSMxTError, SelectionError

#: Where the table of a conversion is kept in the dataset.
SAVED_TABLE = Path("code") / "qsmxt-convert" / "nifti.tsv"
#: The presets that are tried if none is named: these, and ``words`` after the sidecars.
AUTOMATIC = ("qsmxt", "dcm2niix")


@dataclass(frozen=True)
class NiftiSettings:
    """How to fill the table.

    Attributes
    ----------
    preset
        Name in :data:`~qsmxt.convert.nifti_table.PRESETS`, or ``"auto"`` for :data:`AUTOMATIC`.
    patterns
        Regular expressions by column; they go before the preset.
    table
        Table filled by hand; it goes before everything.
    values
        Cells that are the same for all volumes, by column.
    echo_times
        s, ascending; for volumes whose echo time is not known.
    overwrite
        Whether files that are there may be replaced.
    """

    preset: str = "auto"
    patterns: Mapping[str, str] = field(default_factory=dict)
    table: Path | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    echo_times: tuple[float, ...] = ()
    overwrite: bool = False


def read_nifti_table(source: str | Path, settings: NiftiSettings = NiftiSettings()) -> list[NiftiRow]:
    """All volumes below ``source``, with every cell filled that can be.

    Raises
    ------
    MissingInputError, SelectionError
        If the source does not exist, or holds no images.
    ParameterError, InputError
        If a pattern, a value or the table is wrong.
    """
    root = Path(source)
    if not root.exists():
        raise MissingInputError(f"source: expected a folder or a file, found nothing at {root}")
    for time in settings.echo_times:
        if not 0 < time <= 1:
            raise ParameterError(f"echo times: expected seconds (above 0, at most 1), found {time:g}")
    rows = list_volumes(root)
    if not rows:
        raise SelectionError(f"{source}: expected NIfTI or PAR/REC images, found none")
    if settings.table is not None:
        fill_from_table(rows, settings.table)
    fill_from_names(rows, settings.patterns)
    fill_from_values_given(rows, settings.values)
    if settings.preset not in ("auto", *PRESETS):
        raise ParameterError(f"preset: expected auto or one of {', '.join(PRESETS)}, found {settings.preset!r}")
    for name in AUTOMATIC if settings.preset == "auto" else (settings.preset,):
        fill_from_names(rows, PRESETS[name])
    fill_from_sidecars(rows)
    if settings.preset == "auto":
        fill_from_names(rows, PRESETS["words"])
    fill_from_values(rows, root)
    fill_echoes(rows, settings.echo_times)
    return rows


def output_of(row: NiftiRow, rows: Sequence[NiftiRow]) -> PurePosixPath:
    """Path without extension of a volume in the dataset."""
    same = [r for r in rows if r.suffix == row.suffix and _key(r) == _key(row)]
    split = row.part in PARTS and (row.part != "mag" or any(r.part not in ("mag", "") for r in same))
    most = max(r.echo for r in same)
    entities = {
        "subject": row.subject, "session": row.session, "acquisition": row.acquisition,
        "reconstruction": row.reconstruction, "run": padded(row.run, row.run) if row.run else "",
        "inversion": padded(row.inversion, row.inversion) if row.inversion else "",
        "echo": padded(row.echo, most) if row.echo else "", "part": row.part if split else "",
    }  # fmt: skip
    folder = PurePosixPath(f"sub-{row.subject}", *([f"ses-{row.session}"] if row.session else []), "anat")
    return folder / raw_name(entities, row.suffix)


def _key(row: NiftiRow) -> tuple[object, ...]:
    return (row.subject, row.session, row.acquisition, row.reconstruction, row.run, row.inversion)


def convert_nifti(
    rows: Sequence[NiftiRow],
    source: str | Path,
    dataset: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write the volumes of a filled table as a raw BIDS dataset; each acquisition at once or not at all.

    Raises
    ------
    InputError
        If the table is not complete, or contradicts itself.
    OutputError
        If the dataset cannot be written.
    """
    problems = check_table(rows)
    if problems:
        raise InputError(
            "the table cannot be converted; give --subject, --echo-times, --field-strength or --pattern, or fill one "
            "(--save-table, then --table):\n  " + "\n  ".join(problems)
        )
    dataset = Path(dataset)
    used = [row for row in rows if row.suffix != "skip"]
    groups: dict[tuple[object, ...], list[NiftiRow]] = defaultdict(list)
    for row in used:
        groups[(*_key(row), row.suffix)].append(row)
    report = Report()
    try:
        dataset.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".qsmxt-convert-", dir=dataset))
    except OSError as error:
        raise OutputError(f"{dataset}: cannot be written ({error.strerror})") from error
    try:
        for number, members in enumerate(groups.values(), start=1):
            name = output_of(members[0], used).name
            try:
                _convert_group(members, used, Path(source), dataset, scratch, overwrite, report)
            except QSMxTError as error:
                report.problems.append(Problem(name, str(error)))
            except Exception as error:  # one damaged file must not stop the others
                report.problems.append(Problem(name, f"failed ({type(error).__name__}: {error})"))
            if progress is not None:
                progress(name, number, len(groups))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if report.written:
        add_participants(dataset, {row.subject: {} for row in used if (dataset / f"sub-{row.subject}").is_dir()})
        describe(dataset)
    return report


def _convert_group(
    members: Sequence[NiftiRow],
    rows: Sequence[NiftiRow],
    source: Path,
    dataset: Path,
    scratch: Path,
    overwrite: bool,
    report: Report,
) -> None:
    targets = {id(row): output_of(row, rows) for row in members}
    if not overwrite and any((dataset / f"{out}{e}").exists() for out in targets.values() for e in (".nii.gz", ".nii")):
        report.kept.append(targets[id(members[0])].name)
        return
    images = {id(row): load_volume(source, row) for row in members}
    phases = [images[id(row)] for row in members if row.part == "phase"]
    if phases:
        name = targets[id(members[0])].name
        report.warnings += [Problem(name, text) for text in scale_phases(phases)]
    pairs: list[tuple[Path, Path]] = []
    for row in members:
        image, target = images[id(row)], targets[id(row)]
        ready = scratch / target.name
        sidecar = _sidecar(row, image)
        pairs.append((write_json(Path(f"{ready}.json"), sidecar), check_inside(dataset, f"{target}.json")))
        pairs.append((save_image(Path(f"{ready}.nii.gz"), image), check_inside(dataset, f"{target}.nii.gz")))
    install(pairs, overwrite=overwrite)
    written = [target for _, target in pairs if target.name.endswith(".nii.gz")]
    report.written += written
    folder = written[0].parents[1]
    names = {path.relative_to(folder).as_posix(): "" for path in written}
    add_scans(dataset, members[0].subject, members[0].session, names)


def _sidecar(row: NiftiRow, image: Image) -> dict[str, Any]:
    kept = {key: value for key, value in row.sidecar.items() if key not in (*NEVER, "EchoTime1", "EchoTime2")}
    if row.part == "phase":
        kept |= {key: image.sidecar[key] for key in ("Units", "PhaseCorrections") if key in image.sidecar}
    if row.echo_time is not None:
        kept["EchoTime"] = row.echo_time
    if row.field_strength is not None:
        kept["MagneticFieldStrength"] = row.field_strength
    return kept
