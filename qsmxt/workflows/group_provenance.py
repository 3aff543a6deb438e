"""What the group level did, as activities of BIDS-Prov: tables, template, scans brought to it, voxel-wise models."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qsmxt.bids.metadata import read_json
from qsmxt.bids.outputs import RAW, bids_uri
from qsmxt.bids.provenance import Run, write_provenance
from qsmxt.config import GroupSettings
from qsmxt.errors import QSMxTError
from qsmxt.workflows.cohort import Cohort
from qsmxt.workflows.versions import version

logger = logging.getLogger("qsmxt")

#: Name that stands for a unit.
GROUP = "group"

#: Settings of the activities; those of the template are the others.
_TABLES = ("statistic", "models", "require")
_VOXELWISE = ("models", "permutations", "smoothing", "cohort")


def write_group_provenance(
    out_dir: Path, cohort: Cohort, group: GroupSettings, bids_dir: Path | None, facts: Mapping[str, Any]
) -> None:
    """Write what made the files of the group; a failure here loses none of them."""
    run = Run.ending_now(facts)
    roots = {} if bids_dir is None else {RAW: bids_dir}
    try:
        records = group_records(out_dir, cohort, group, bids_dir)
        if records:
            write_provenance(out_dir, GROUP, records, run, roots)
    except Exception:
        logger.exception("the provenance of the group could not be written")


def group_records(out_dir: Path, cohort: Cohort, group: GroupSettings, bids_dir: Path | None) -> list[dict[str, Any]]:
    """Records of all activities whose files are there, each with ``used``, ``files`` and ``parameters``."""
    settings = dataclasses.asdict(group)
    maps = [path for scan in cohort.scans for path in scan.maps.values()]
    members = _uris(out_dir, maps)
    found = [_tables(out_dir, cohort, settings, bids_dir)]
    brought: list[str] = []
    for path in sorted((out_dir / "logs" / "group").glob("*.json")):
        record = _record(path)
        files = [str(file) for file in record.get("files", {}).values() if (out_dir / str(file)).is_file()]
        if not files:
            continue
        scan = not path.stem.startswith("tpl-")
        used = [] if scan else members
        brought += [f"bids::{file}" for file in files if scan and file.endswith(".nii.gz")]
        rest = {key: settings[key] for key in settings if key not in (*_TABLES, *_VOXELWISE, "voxelwise", "template")}
        label = f"{path.stem}: {'brought to the template' if scan else 'template'}"
        found.append(_activity(label, used, files, rest | {"cohort": settings["cohort"]}))
    tests = sorted(out_dir.glob(f"tpl-{group.cohort}/**/*_statmap.nii.gz"))
    if tests:
        files = [path.relative_to(out_dir).as_posix() for path in (*tests, *out_dir.glob("group_voxelwise_stats.tsv"))]
        found.append(_activity("voxel-wise models", brought, files, {key: settings[key] for key in _VOXELWISE}))
    return [record for record in found if record["files"]]


def _tables(out_dir: Path, cohort: Cohort, settings: Mapping[str, Any], bids_dir: Path | None) -> dict[str, Any]:
    used = _uris(out_dir, (path for scan in cohort.scans for path in scan.tables))
    if bids_dir is not None and (bids_dir / "participants.tsv").is_file():
        used.append(bids_uri(bids_dir / "participants.tsv", bids_dir))
    tables = [path for path in sorted(out_dir.glob("group_*_stats.tsv")) if path.name != "group_voxelwise_stats.tsv"]
    files = [path.relative_to(out_dir).as_posix() for path in tables]
    return _activity("tables of the group", used, files, {key: settings[key] for key in _TABLES})


def _activity(label: str, used: Iterable[str], files: Iterable[str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in parameters.items() if value not in (None, ())}
    return {
        "unit": GROUP, "version": version(), "output": label, "used": list(dict.fromkeys(used)),
        "files": {str(number): file for number, file in enumerate(files)}, "parameters": kept,
    }  # fmt: skip


def _uris(out_dir: Path, paths: Iterable[Path]) -> list[str]:
    return [bids_uri(path, out_dir, "") for path in paths if path.is_relative_to(out_dir)]


def _record(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except QSMxTError:
        return {}
