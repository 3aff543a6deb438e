"""Quality metrics of a dataset: read from the records, completed with labels, and as one table with its dictionary."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.algorithms.statistics.quality_metrics import FEWEST, METRICS, Metric, deep_grey_contrast
from qsmxt.bids.atomic import write_json, write_text
from qsmxt.bids.entities import parse_name
from qsmxt.reports.interface import HISTOGRAM, QUALITY

logger = logging.getLogger("qsmxt")

#: Table of the dataset and its data dictionary.
TABLE = "quality_stats"

#: Names of deep grey nuclei that hold iron.
NUCLEI = re.compile(
    r"caudate|putamen|pallid|(?<![a-z])gp[ei](?![a-z])|nigra|(?<![a-z])red[-_ ]?nucleus|subthalam|dentate",
    re.IGNORECASE,
)

#: Tissues by the names of their labels, the first that fits counts.
TISSUES: dict[str, re.Pattern[str]] = {
    "Deep grey matter": re.compile(f"{NUCLEI.pattern}|thalamus|accumbens", re.IGNORECASE),
    "Fluid": re.compile(r"ventricle|csf|fluid", re.IGNORECASE),
    "White matter": re.compile(r"white|callosum", re.IGNORECASE),
    "Cortex": re.compile(r"cort(ex|ical)|gr[ae]y|ctx", re.IGNORECASE),
}

_HEAD = {
    "participant_id": "participant",
    "session_id": "session",
    "acquisition_name": "name of the acquisition",
    "grade": "worst grade of all metrics: good, look (usable, see why) or poor",
    "warnings": "number of metrics that are not good",
}


def read_quality(out_dir: Path, subject: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """What was measured and drawn, by the name of the unit."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out_dir.glob(f"logs/sub-{subject or '*'}/*{QUALITY}")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(str(values["unit"]), []).append(values)
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s: not a file of quality metrics; ignored", path)
    return found


def metrics_of(
    out_dir: Path, qualities: list[dict[str, Any]], records: Iterable[Mapping[str, Any]]
) -> dict[str, float]:
    """Metrics of a unit with those that its ``records`` add: of alignment, and of nuclei if there are labels."""
    records = list(records)
    files = {str(name): str(file) for record in records for name, file in record["files"].items()}
    metrics: dict[str, float] = {}
    for quality in qualities:
        metrics |= {key: float(value) for key, value in quality.get("metrics", {}).items() if value is not None}
    for record in records:
        metrics |= _alignment(record)
    contrast = _nuclei(out_dir, files)
    return metrics if contrast is None else {**metrics, "deep_grey_contrast": contrast}


def _alignment(record: Mapping[str, Any]) -> dict[str, float]:
    """The worst of the registrations that a record tells of."""
    known = (record.get("statistics") or {}).get("registration") or {}
    similar = [float(value) for name, value in known.items() if name.startswith("similarity_")]
    found = {"alignment_similarity": min(similar)} if similar else {}
    if "overlap_of_brain_masks" in known:
        found["alignment_overlap"] = float(known["overlap_of_brain_masks"])
    return found


def judged(metrics: Mapping[str, float]) -> list[tuple[Metric, float, str]]:
    """Metric, value and grade, in the order of the declaration."""
    return [(entry, metrics[entry.key], entry.grade(metrics[entry.key])) for entry in METRICS if entry.key in metrics]


def worst(metrics: Mapping[str, float]) -> str:
    """The worst grade; ``"not measured"`` if there is none."""
    grades = {grade for _, _, grade in judged(metrics)}
    return next((grade for grade in ("poor", "look", "good") if grade in grades), "not measured")


def label_files(files: Mapping[str, str]) -> list[str]:
    """Label images on the grid of the gradient echo."""
    names = dict.fromkeys(name for name in files.values() if name.endswith("_dseg.nii.gz"))
    return [name for name in names if "space" not in parse_name(Path(name).name)[0]]


def tissue_histograms(out_dir: Path, files: Mapping[str, str]) -> dict[str, list[float]]:
    """Share of the voxels of every tissue (and of the rest of the mask) in the bins of the histogram.

    Bins are those of :data:`qsmxt.reports.interface.HISTOGRAM`; the outermost hold what lies beyond. Empty without
    labels on the grid of the susceptibility map.
    """
    import nibabel

    if not {"chi", "mask"} <= files.keys():
        return {}
    found: dict[str, list[float]] = {}
    for name in label_files(files):
        try:
            groups = _tissue_indices(out_dir / name.replace(".nii.gz", ".tsv"))
            images = [nibabel.load(out_dir / file) for file in (name, files["chi"], files["mask"])]
        except (OSError, ValueError, KeyError):
            continue
        labels, chi, mask = (np.asanyarray(image.dataobj) for image in images)  # type: ignore[attr-defined]
        if not labels.shape == chi.shape == mask.shape:
            continue
        for tissue, indices in groups.items():
            _add_shares(found, tissue, chi[np.isin(labels, indices) & (mask > 0)])
        if groups:
            _add_shares(found, "Rest of the mask", chi[(labels == 0) & (mask > 0)])
    return found


def _add_shares(found: dict[str, list[float]], tissue: str, values: np.ndarray) -> None:
    low, high, bins = HISTOGRAM
    if values.size >= FEWEST and tissue not in found:
        counts, _ = np.histogram(np.clip(values, low, high), bins=bins // 2, range=(low, high))
        found[tissue] = (counts / values.size).tolist()


def _tissue_indices(table: Path) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    with table.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            tissue = next((key for key, pattern in TISSUES.items() if pattern.search(row["name"])), None)
            if tissue is not None and int(row["index"]) != 0:
                groups.setdefault(tissue, []).append(int(row["index"]))
    return groups


def _nuclei(out_dir: Path, files: Mapping[str, str]) -> float | None:
    import nibabel

    if not {"chi", "mask"} <= files.keys():
        return None
    for name in label_files(files):
        try:
            wanted = _indices(out_dir / name.replace(".nii.gz", ".tsv"))
            images = [nibabel.load(out_dir / file) for file in (name, files["chi"], files["mask"])]
        except (OSError, ValueError, KeyError):
            continue
        labels, chi, mask = (np.asanyarray(image.dataobj) for image in images)  # type: ignore[attr-defined]
        if wanted and labels.shape == chi.shape == mask.shape:
            return deep_grey_contrast(chi, np.isin(labels, wanted), mask > 0)
    return None


def _indices(table: Path) -> list[int]:
    with table.open(encoding="utf-8", newline="") as stream:
        return [int(row["index"]) for row in csv.DictReader(stream, delimiter="\t") if NUCLEI.search(row["name"])]


def write_quality_table(out_dir: Path, records: list[dict[str, Any]]) -> Path | None:
    """``quality_stats.tsv`` and ``.json``: a row for every unit; nothing is written if nothing was measured."""
    qualities = read_quality(out_dir)
    rows = []
    for unit in sorted(qualities):
        own = [record for record in records if record["unit"] == unit]
        metrics = metrics_of(out_dir, qualities[unit], own)
        if metrics:
            entities = parse_name(f"{unit}.nii")[0]
            head = [f"sub-{entities.get('subject', '')}", entities.get("session"), unit, worst(metrics)]
            bad = sum(grade in ("look", "poor") for _, _, grade in judged(metrics))
            rows.append([*head, bad, *(metrics.get(entry.key) for entry in METRICS)])
    if not rows:
        return None
    columns = [*_HEAD, *(entry.key for entry in METRICS)]
    lines = ["\t".join(columns), *("\t".join(_cell(value) for value in row) for row in rows)]
    write_json(out_dir / f"{TABLE}.json", dictionary())
    return write_text(out_dir / f"{TABLE}.tsv", "".join(f"{line}\n" for line in lines))


def dictionary() -> dict[str, Any]:
    """Meaning, unit and expected range of every column."""
    columns: dict[str, Any] = {name: {"Description": text} for name, text in _HEAD.items()}
    for entry in METRICS:
        columns[entry.key] = {
            "LongName": entry.title,
            "Description": entry.meaning,
            "Units": entry.unit,
            "GoodRange": list(entry.good),
            "UsableRange": list(entry.fair),
        }
    return columns


def range_text(bounds: tuple[float | None, float | None]) -> str:
    """Bounds in words.

    >>> range_text((None, 0.5)), range_text((20, None)), range_text((1, 1)), range_text((-0.1, 0.1))
    ('at most 0.5', 'at least 20', '1', '-0.1 to 0.1')
    """
    low, high = bounds
    if low is None:
        return "" if high is None else f"at most {high:g}"
    if high is None:
        return f"at least {low:g}"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "n/a"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
