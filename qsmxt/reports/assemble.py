"""The page of a subject: one HTML file that holds everything it shows and needs no network."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from qsmxt.bids.atomic import write_text
from qsmxt.bids.outputs import Derivatives
from qsmxt.registry.catalogue import catalogue
from qsmxt.reports.citations import methods_text, references_text
from qsmxt.reports.interface import PICTURES

logger = logging.getLogger("qsmxt")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem 2rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { border-bottom: 1px solid #ccc; font-size: 1.2rem; margin-top: 2.5rem; }
figure { background: #000; color: #ddd; margin: 1rem 0; padding: .5rem; }
figure img { display: block; margin: auto; max-width: 100%; } figcaption { font-size: .85rem; text-align: center; }
table { border-collapse: collapse; } td, th { border: 1px solid #ddd; padding: .2rem .6rem; text-align: left; }
.warning { background: #fff4d6; border-left: 4px solid #e0a800; padding: .3rem .8rem; }
.error { background: #fde2e2; border-left: 4px solid #c00; padding: .3rem .8rem; white-space: pre-wrap; }
"""


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
    records = read_records(out_dir, subject)
    sections = [_unit_section(out_dir, name, parts) for name, parts in _by_unit(records).items()]
    errors = [
        f'<h2>{escape(name)}</h2><p class="error">{escape(reason)}</p>' for name, reason in (problems or {}).items()
    ]
    body = [
        f"<h1>QSMxT: subject {escape(subject)}</h1>",
        *sections,
        *errors,
        "<h2>Methods</h2>",
        f"<p>{escape(methods_text(records))}</p>",
        "<h2>References</h2><ol>",
        *(f"<li>{escape(line)}</li>" for line in references_text(records).splitlines()),
        "</ol>",
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>QSMxT: sub-{escape(subject)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
    return write_text(Derivatives(out_dir).report(subject), page)


def _by_unit(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        grouped.setdefault(str(record["unit"]), []).append(record)
    return grouped


def _unit_section(out_dir: Path, name: str, records: list[dict[str, Any]]) -> str:
    notes = dict.fromkeys(str(note) for record in records for note in record.get("notes", ()))
    parts = [f"<h2>{escape(name)}</h2>", _facts(records[0])]
    parts += [f'<p class="warning">{escape(note)}</p>' for note in notes]
    files: dict[str, str] = {}
    for record in records:
        files |= record["files"]
    parts += [_figure(out_dir, files[key], title) for key, _, title in PICTURES if key in files]
    parts.append(_settings(records))
    return "\n".join(part for part in parts if part)


def _facts(record: Mapping[str, Any]) -> str:
    grid = record.get("grid", {})
    times = ", ".join(f"{1e3 * float(t):.4g}" for t in record.get("echo_times", ()))
    rows = {
        "Matrix": " x ".join(str(n) for n in grid.get("shape", ())),
        "Voxel": " x ".join(f"{float(v):.4g}" for v in grid.get("voxel_size", ())) + " mm",
        "Direction of B0 in voxel axes": ", ".join(f"{float(b):.4f}" for b in grid.get("b0_direction", ())),
        "Echo times": f"{times} ms",
        "Field strength": f"{record.get('field_strength', '')} T",
    }
    return _table(rows)


def _table(rows: Mapping[str, str]) -> str:
    cells = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items())
    return f"<table>{cells}</table>"


def _figure(out_dir: Path, map_file: str, title: str) -> str:
    """The picture of a map, which lies under its name in the subject's folder of figures."""
    relative = Path(map_file)
    picture = out_dir / relative.parts[0] / "figures" / (relative.name.partition(".")[0] + ".png")
    try:
        data = base64.b64encode(picture.read_bytes()).decode()
    except OSError:
        return ""
    return (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )


def _settings(records: Sequence[Mapping[str, Any]]) -> str:
    rows: dict[str, str] = {}
    for record in records:
        for step in record.get("steps", ()):
            stage, _, key = str(step["method"]).partition(".")
            known = catalogue().get(stage, {}).get(key)
            values = ", ".join(f"{name} = {value}" for name, value in step.get("parameters", {}).items())
            rows[f"{stage}: {known.title if known else key}"] = values
    return f"<details><summary>Settings</summary>{_table(rows)}</details>"
