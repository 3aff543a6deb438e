"""The page of a subject: one HTML file that holds what it shows and needs no network."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from qsmxt.algorithms.statistics.quality_metrics import METRICS
from qsmxt.bids.atomic import write_bytes
from qsmxt.bids.outputs import Derivatives
from qsmxt.registry.catalogue import catalogue
from qsmxt.reports import consensus, page
from qsmxt.reports.citations import methods_text, references_text
from qsmxt.reports.interface import HISTOGRAM
from qsmxt.reports.overlays import Outlined, outlined
from qsmxt.reports.pictures import PICTURES
from qsmxt.reports.quality import judged, metrics_of, range_text, read_quality, tissue_histograms, worst
from qsmxt.reports.viewer import Viewers

logger = logging.getLogger("qsmxt")

#: Lines of a crash text that are shown, from its end.
CRASH_LINES = 60

#: Grades in the words of a warning.
_UNUSUAL = {"look": "unusual", "poor": "far from usual"}

#: Most regions in a plot.
MOST_BARS = 40


@dataclass
class Unit:
    """All that is known about one unit."""

    name: str
    records: list[dict[str, Any]] = field(default_factory=list)
    qualities: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, str]:
        """Files of all records."""
        return {name: str(file) for record in self.records for name, file in record["files"].items()}

    @property
    def notes(self) -> list[str]:
        """Remarks, each once."""
        return list(dict.fromkeys(str(note) for record in self.records for note in record.get("notes", ())))

    @property
    def warnings(self) -> list[str]:
        """What a reader should look at before using the maps, with what to do."""
        statistics = [record.get("statistics") or {} for record in self.records]
        masks = [found.get("mask") for found in statistics if isinstance(found, Mapping)]
        texts = [str(text) for mask in masks if isinstance(mask, Mapping) for text in mask.get("warnings", ())]
        for entry, value, grade in judged(self.metrics):
            if grade in ("look", "poor"):
                expected = f" (usual: {range_text(entry.good)})"
                unit = "" if entry.unit == "1" else f" {entry.unit}"
                texts.append(f"{entry.title}: {value:.3g}{unit} is {_UNUSUAL[grade]}{expected}. {entry.advice(value)}")
        return list(dict.fromkeys(texts))


def read_records(out_dir: Path, subject: str | None = None) -> list[dict[str, Any]]:
    """The records of all runs in an output dataset, of one subject or of all."""
    pattern = f"logs/sub-{subject}/*.json" if subject is not None else "logs/sub-*/*.json"
    records = []
    for path in sorted(out_dir.glob(pattern)):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning("%s: not a record of a run; ignored", path)
            continue
        if isinstance(record, dict) and "unit" in record and "files" in record:
            records.append(record)
    return records


def write_report(out_dir: Path, subject: str, problems: Mapping[str, str] | None = None) -> Path:
    """Write the page of ``subject`` from what lies in the output dataset.

    Parameters
    ----------
    out_dir
        Root of the output dataset.
    subject
        Label without ``sub-``.
    problems
        Reasons why units failed or were skipped, by their names.
    """
    out_dir, problems = Path(out_dir), problems or {}
    records = read_records(out_dir, subject)
    units = _units(out_dir, subject, records)
    pictures, viewers = page.Pictures(out_dir), Viewers(out_dir, len(units))
    body = [
        page.heading(1, f"QSMxT: subject {subject}"),
        _navigation(units, problems),
        "<main>",
        _errors(out_dir, subject, problems),
        _warnings(units),
        _summary(units),
        *(part for number, unit in enumerate(units, 1) for part in _unit(out_dir, unit, number, pictures, viewers)),
        page.heading(2, "Methods", "methods"),
        f"<p>{escape(methods_text(records))}</p>",
        _consensus(units),
        page.heading(2, "References", "references"),
        "<ol>",
        *(f"<li>{escape(line)}</li>" for line in references_text(records).splitlines()),
        "</ol></main>",
        viewers.library(),
    ]
    content = page.document(f"QSMxT: sub-{subject}", body, viewers.script_digests())
    return write_bytes(Derivatives(out_dir).report(subject), content)


def _units(out_dir: Path, subject: str, records: Sequence[dict[str, Any]]) -> list[Unit]:
    units: dict[str, Unit] = {}
    for record in records:
        units.setdefault(str(record["unit"]), Unit(str(record["unit"]))).records.append(record)
    qualities = read_quality(out_dir, subject)
    for unit in units.values():
        unit.qualities = qualities.get(unit.name, [])
        unit.metrics = metrics_of(out_dir, unit.qualities, unit.records)
    return list(units.values())


def _navigation(units: Sequence[Unit], problems: Mapping[str, str]) -> str:
    links = [("errors", "Errors")] if problems else []
    links += [("warnings", "Warnings"), ("summary", "Summary")]
    links += [(f"unit-{number}", unit.name) for number, unit in enumerate(units, 1)]
    links += [("methods", "Methods"), ("references", "References")]
    items = "".join(f'<li><a href="#{anchor}">{escape(text)}</a></li>' for anchor, text in links)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _errors(out_dir: Path, subject: str, problems: Mapping[str, str]) -> str:
    if not problems:
        return ""
    parts = [page.heading(2, "Errors", "errors")]
    for name, reason in problems.items():
        parts += [page.heading(3, name), page.paragraph("error", reason)]
        text = crash_text(Derivatives(out_dir).logs(subject), name)
        if text:
            parts.append(page.folded("Text of the crash", f"<pre>{escape(text)}</pre>"))
    return "\n".join(parts)


def crash_text(folder: Path, unit: str) -> str:
    """End of the newest crash file of a unit; empty if there is none."""
    node = unit.replace("+", "plus")
    for path in sorted(folder.glob("crash-*.txt"), key=lambda path: path.stat().st_mtime, reverse=True):
        text = path.read_text(encoding="utf-8", errors="replace")
        if f".{node}." in text.partition("\n")[0]:
            return "\n".join(text.rstrip().splitlines()[-CRASH_LINES:])
    return ""


def _warnings(units: Sequence[Unit]) -> str:
    parts = [page.heading(2, "Warnings", "warnings")]
    for unit in units:
        parts += [page.paragraph("warning", f"{unit.name}: {text}") for text in unit.warnings]
    return "\n".join(parts if len(parts) > 1 else [*parts, "<p>None.</p>"])


def _summary(units: Sequence[Unit]) -> str:
    rows = [
        [unit.name, *list(_facts(unit.records[0]).values())[:2], _echoes(unit.records[0]),
         f"grade: {worst(unit.metrics)}", str(len(unit.warnings))]
        for unit in units
    ]  # fmt: skip
    columns = ("Acquisition", "Matrix", "Voxel", "Echoes", "Quality", "Warnings")
    return page.heading(2, "Summary", "summary") + page.table(columns, rows, "Summary of the acquisitions")


def _echoes(record: Mapping[str, Any]) -> str:
    return f"{len(record.get('echo_times', ()))}"


def _unit(out_dir: Path, unit: Unit, number: int, pictures: page.Pictures, viewers: Viewers) -> list[str]:
    layouts = [quality["viewer"] for quality in unit.qualities if quality.get("viewer")]
    labels = outlined(out_dir, unit.files, layouts[0] if layouts else {})
    histograms = [quality["histogram"] for quality in unit.qualities if quality.get("histogram")]
    return [
        page.heading(2, unit.name, f"unit-{number}"),
        page.facts(_facts(unit.records[0])),
        *(page.paragraph("note", note) for note in unit.notes),
        _quality(unit),
        page.facts(_mask_facts(unit.records)),
        *(viewers.section(layout, labels, unit.name, f"{number}-{i}") for i, layout in enumerate(layouts)),
        *_figures(unit, labels, pictures),
        *(page.histogram(values, "Histogram of susceptibility in the mask, ppm") for values in histograms),
        page.curves(
            tissue_histograms(out_dir, unit.files), "Histogram of susceptibility by tissue, ppm", HISTOGRAM[:2]
        ),
        page.bars(_regions(out_dir, unit), "Median susceptibility of regions, ppm"),
        page.folded("Settings", _settings(unit.records)),
        _taken(out_dir, unit),
    ]


def _mask_facts(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the mask measures, and how well the sections that it was made of agree; empty without a mask."""
    found = [(record.get("statistics") or {}).get("mask") for record in records]
    mask = next((one for one in found if isinstance(one, Mapping) and "volume_ml" in one), None)
    if mask is None:
        return {}
    facts = {"Mask volume": f"{mask['volume_ml']:.0f} ml"}
    if "reliable_volume_ml" in mask and mask["volume_ml"]:
        facts["Reliable phase"] = f"{100 * mask['reliable_volume_ml'] / mask['volume_ml']:.1f} % of the mask"
    for name, title in (("euler_number", "Euler number of the mask"), ("components", "Pieces of the mask")):
        if name in mask:
            facts[title] = str(mask[name])
    for pair, value in (mask.get("agreement") or {}).items():
        facts[f"Dice of {pair.replace(' | ', ' and ')}"] = f"{value:.3f}"
    return facts


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    grid = record.get("grid", {})
    times = ", ".join(f"{1e3 * float(t):.4g}" for t in record.get("echo_times", ()))
    return {
        "Matrix": " x ".join(str(n) for n in grid.get("shape", ())),
        "Voxel": " x ".join(f"{float(v):.4g}" for v in grid.get("voxel_size", ())) + " mm",
        "Direction of B0 in voxel axes": ", ".join(f"{float(b):.4f}" for b in grid.get("b0_direction", ())),
        "Echo times": f"{times} ms",
        "Field strength": f"{record.get('field_strength', '')} T",
        "QSMxT": str(record.get("version", "")),
    }


def _quality(unit: Unit) -> str:
    rows = [
        [entry.title, f"{value:.4g}{'' if entry.unit == '1' else f' {entry.unit}'}", f"grade: {grade}",
         range_text(entry.good), entry.meaning]
        for entry, value, grade in judged(unit.metrics)
    ]  # fmt: skip
    if not rows:
        return ""
    missing = [entry.title.lower() for entry in METRICS if entry.key not in unit.metrics]
    left_out = f"<p>Not measured, for want of data: {escape(', '.join(missing))}.</p>" if missing else ""
    columns = ("Metric", "Value", "Grade", "Usual for human brains", "Meaning")
    return page.heading(3, "Quality") + page.table(columns, rows, f"Quality of {unit.name}") + left_out


def _figures(unit: Unit, labels: Sequence[Outlined], pictures: page.Pictures) -> Iterable[str]:
    drawn = {entry["name"]: entry for quality in unit.qualities for entry in quality.get("figures", ())}
    for name, file in unit.files.items():
        drawn.setdefault(name, {"name": name, "file": _figure_file(file)})
    for picture in PICTURES:
        if picture.name in drawn:
            yield pictures.figure(str(drawn[picture.name]["file"]), picture.title, unit.name)
        if picture.name == "chi":
            for one in labels:
                yield pictures.figure(one.picture, one.title, unit.name)


def _figure_file(map_file: str) -> str:
    """The picture of a map lies under its name in the subject's folder of figures."""
    relative = Path(map_file)
    return f"{relative.parts[0]}/figures/{relative.name.partition('.')[0]}.png"


def _regions(out_dir: Path, unit: Unit) -> dict[str, float]:
    """Median susceptibility by region, from the table of the unit."""
    file = unit.files.get("stats", "")
    found: dict[str, float] = {}
    try:
        with (out_dir / file).open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                if row.get("map", "chi") == "chi" and len(found) < MOST_BARS:
                    found[str(row["region"])] = float(row["median"])
    except (OSError, ValueError, KeyError, TypeError):
        return found
    return found


def _settings(records: Sequence[Mapping[str, Any]]) -> str:
    rows: dict[str, str] = {}
    for record in records:
        for step in record.get("steps", ()):
            stage, _, key = str(step["method"]).partition(".")
            known = catalogue().get(stage, {}).get(key)
            found = {name: f"auto ({value})" for name, value in step.get("found", {}).items()}
            values = {**step.get("parameters", {}), **found}
            rows[f"{stage}: {known.title if known else key}"] = ", ".join(f"{n} = {v}" for n, v in values.items())
    return page.facts(rows)


def _taken(out_dir: Path, unit: Unit) -> str:
    """Time and memory of the unit's steps in the last run that did them."""
    node = unit.name.replace("+", "plus")
    try:
        with (Derivatives(out_dir).logs(str(unit.records[0]["subject"])) / "resources.tsv").open(
            encoding="utf-8", newline=""
        ) as stream:
            rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["node"].split(".")[0] == node]
        cells = [[row["node"].partition(".")[2], row["wall_s"], row["cpu_s"], row["peak_gb"]] for row in rows]
    except (OSError, KeyError, AttributeError):
        return ""
    columns = ("Step", "Time, s", "CPU time, s", "Peak memory, GB")
    return page.folded("Time and memory", page.table(columns, cells, "Time and memory")) if cells else ""


def _verdicts(unit: Unit) -> list[list[consensus.Verdict]]:
    """Verdicts on the outputs of a unit, each once; the first output made the susceptibility map."""
    found: list[list[consensus.Verdict]] = []
    for record in unit.records:
        verdicts = consensus.compliance(record) if "chi" in record["files"] else []
        if verdicts and verdicts not in found:
            found.append(verdicts)
    return found


def _consensus(units: Sequence[Unit]) -> str:
    parts = []
    for unit in units:
        for verdicts in _verdicts(unit):
            words = {True: "followed", False: "departs", None: "does not apply"}
            rows = [[v.recommendation, f"grade: {words[v.followed]}", v.found] for v in verdicts]
            parts += [
                page.paragraph("note", f"{unit.name}: {consensus.summary(verdicts)}"),
                page.folded("Recommendations", page.table(("Recommendation", "This run", "Found"), rows, "Consensus")),
            ]
    return page.heading(3, "ISMRM consensus on QSM") + "\n".join(parts) if parts else ""
