"""Names of regions, tables of labels, and spreadsheets of statistics."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qsmxt.algorithms.statistics.regions import REGION_COLUMNS, VALUE_COLUMNS, Region
from qsmxt.errors import InputError

#: Names of the indices that FreeSurfer, FastSurfer and SynthSeg use.
FREESURFER = Path(__file__).parents[1] / "data" / "labels" / "freesurfer.tsv"

_LEFT = re.compile(r"^(left|lh|l)[-_. ]|[-_. ](left|lh|l)$|-lh-|^ctx[-_]lh", re.IGNORECASE)
_RIGHT = re.compile(r"^(right|rh|r)[-_. ]|[-_. ](right|rh|r)$|-rh-|^ctx[-_]rh", re.IGNORECASE)

#: Columns that say what a row is about, with their meaning.
ID_COLUMNS: dict[str, str] = {
    "participant_id": "subject",
    "session_id": "session",
    "acquisition": "acq label of the gradient echo",
    "run": "run of the gradient echo",
    "atlas": "atlas, segmentation or set of regions of interest",
    "index": "label of the region in the dseg image",
    "region": "name of the region",
    "hemisphere": "L or R where the region belongs to one",
    "map": "quantity",
    "unit": "unit of all values of the row",
    "reference": "what susceptibility is referenced to",
}


def hemisphere_of(name: str) -> str:
    """``L``, ``R`` or nothing, from the name of a region.

    >>> [hemisphere_of(name) for name in ("Left-Putamen", "GPe_R", "ctx-rh-insula", "Brain-Stem", "Lingual")]
    ['L', 'R', 'R', '', '']
    """
    if _LEFT.search(name):
        return "L"
    return "R" if _RIGHT.search(name) else ""


def read_regions(table: Path | None) -> list[Region]:
    """Regions of a BIDS ``dseg.tsv`` (columns ``index`` and ``name``), background left out."""
    if table is None:
        return []
    with table.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    if rows and not {"index", "name"} <= set(rows[0]):
        raise InputError(f"{table}: expected the columns index and name, found {', '.join(rows[0])}")
    regions = []
    for row in rows:
        try:
            index = int(float(row["index"]))
        except (TypeError, ValueError):
            raise InputError(f"{table}: index: expected a whole number, found {row['index']!r}") from None
        side = (row.get("hemisphere") or row.get("hemi") or "").strip()[:1].upper()
        name = (row["name"] or "").strip() or str(index)
        if index > 0:
            regions.append(Region(index, name, side if side in ("L", "R") else hemisphere_of(name)))
    return regions


def named(indices: Iterable[int], regions: Sequence[Region]) -> list[Region]:
    """A region for each index that occurs, by its number where the table does not name it, and all of the table."""
    known = {region.index: region for region in regions}
    for index in indices:
        known.setdefault(int(index), Region(int(index), str(int(index))))
    return [known[index] for index in sorted(known) if index > 0]


def regions_text(regions: Sequence[Region]) -> str:
    """Text of a BIDS ``dseg.tsv``."""
    lines = ["index\tname\themisphere", *(f"{r.index}\t{r.name}\t{r.hemisphere or 'n/a'}" for r in regions)]
    return "".join(f"{line}\n" for line in lines)


def table_text(rows: Sequence[Mapping[str, Any]], *, tabs: bool) -> str:
    """Rows as CSV (fields in quotes where they need them) or TSV; what does not exist is ``n/a``."""
    stream = io.StringIO()
    columns = [*ID_COLUMNS, *REGION_COLUMNS, *VALUE_COLUMNS]
    writer = csv.writer(stream, delimiter="\t" if tabs else ",", lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_text(row.get(column)) for column in columns])
    return stream.getvalue()


def _text(value: Any) -> str:
    if value is None or value == "":
        return "n/a"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def dictionary(references: Mapping[str, Any]) -> dict[str, Any]:
    """What every column means, for the JSON next to the table; ``references`` describes further entries."""
    described: dict[str, Any] = {name: {"Description": text} for name, text in ID_COLUMNS.items()}
    described |= {name: {"Description": text} for name, text in REGION_COLUMNS.items()}
    described["volume_mm3"]["Units"] = "mm^3"
    for name, text in VALUE_COLUMNS.items():
        described[name] = {"Description": text, "Units": "1" if name.startswith("fraction") else "see the column unit"}
    return {**described, **references}
