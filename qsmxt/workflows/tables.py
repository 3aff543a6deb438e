"""Tables of a cohort: all statistics of regions, long and wide, with covariates; effects; models.

They lie in the root of the output dataset as ``group_<what>_stats.tsv``, each with a data dictionary in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.algorithms.statistics import group as statistics
from qsmxt.algorithms.statistics.regions import REGION_COLUMNS, VALUE_COLUMNS
from qsmxt.bids.atomic import write_json, write_text
from qsmxt.errors import ParameterError
from qsmxt.workflows.cohort import Cohort, is_missing, number, read_table, table_text

Row = dict[str, Any]

#: Columns of the wide table for every map and region.
WIDE = ("mean", "median", "volume_mm3")

#: Columns of a table of regions that name things.
_TEXT = ("map", "region", "hemisphere", "segmentation", "atlas", "unit", "reference")

#: Columns that the name of the file says already.
_IDS = ("participant_id", "session_id", "acquisition", "run")

_MEANING = {
    "participant_id": "participant",
    "session_id": "session",
    "map": "quantity that the statistics are about",
    "index": "index of the label",
    "region": "region",
    "atlas": "atlas, segmentation or set of regions of interest",
    "reference": "what susceptibility is referenced to",
    "unit": "unit of all values of the row",
    "hemisphere": "side of the region: L, R, or none",
    "covariate": "column of participants.tsv or sessions.tsv",
    "contrast": "level of the covariate less the other one",
    "q": "p value adjusted for the false discovery rate over the regions of a map (Benjamini-Hochberg)",
    "p": "p value of one test",
    "g": "effect size: Hedges' g",
    "difference": "difference of the means, with g_low, g_high, low, high the bounds of 95 % intervals",
    "r": "Pearson's correlation",
    "slope": "change per unit of the covariate",
    "kind": "ols: least squares; mixed: random intercept per participant, restricted maximum likelihood",
    "term": "coefficient of the model",
    "permutations": "number of permutations behind the corrected p value",
    "t": "t value where p is smallest",
    "x": "place of the smallest p on the template, mm to the right of its origin, y to the front, z to the top",
    "estimate": "value of the coefficient, with its standard error and the bounds of the 95 % interval",
    "within_sd": "standard deviation of a scan within a participant",
    "bias": "mean of second session less first, with the limits of agreement low and high (1.96 standard deviations)",
    "notes": "number of corrections and warnings in the records of the runs",
}


def region_rows(cohort: Cohort, covariates: Mapping[str, Row]) -> list[Row]:
    """The long table: a row for every scan, map and region, in this order."""
    rows: list[Row] = []
    for scan in cohort.scans:
        head = {**scan.columns(), **covariates.get(scan.name, {})}
        for path in scan.tables:
            for line in read_table(path):
                values = {key: _value(key, text) for key, text in line.items() if key and key not in (*head, *_IDS)}
                if "region" not in values and "name" in values:
                    values["region"] = values.pop("name")
                if "region" in values:
                    rows.append({**head, "map": values.pop("map", "chi"), **values})
    return rows


def _value(column: str, text: str | None) -> Any:
    if column in _TEXT or column == "name":
        return "" if is_missing(text) else str(text)
    found = number(text)
    if found is not None and column in ("index", "n_region", "n_voxels"):
        return int(found)
    return found if found is not None or is_missing(text) else text


def wide_rows(cohort: Cohort, long: Sequence[Row], covariates: Mapping[str, Row]) -> list[Row]:
    """The wide table: a row a scan, columns ``<map>.<region>.<statistic>``."""
    heads = {
        tuple(scan.columns().items()): {**scan.columns(), **covariates.get(scan.name, {})} for scan in cohort.scans
    }
    ids = {name for head in heads for name, _ in head}
    for row, label in zip(long, statistics.region_labels(long), strict=True):
        key = tuple((name, row[name]) for name in row if name in ids)
        target = heads[key]
        for statistic in WIDE:
            if statistic in row:
                target[f"{row['map']}.{label}.{statistic}"] = row[statistic]
    return list(heads.values())


def by_region(long: Sequence[Row], statistic: str) -> dict[tuple[str, str], list[Row]]:
    """Rows of every map and region that have a value; in the order of the table."""
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row, label in zip(long, statistics.region_labels(long), strict=True):
        if isinstance(row.get(statistic), float):
            grouped.setdefault((row["map"], label), []).append(row)
    return grouped


def per_person(rows: Sequence[Row], statistic: str, covariate: str) -> tuple[np.ndarray, list[Any]]:
    """Mean over the scans of every participant, and the participant's covariate (mean, or the first text)."""
    people: dict[str, list[Row]] = {}
    for row in rows:
        people.setdefault(row["participant_id"], []).append(row)
    values = np.array([np.mean([float(row[statistic]) for row in own]) for own in people.values()])
    covariates: list[Any] = []
    for own in people.values():
        known: list[Any] = [row[covariate] for row in own if row.get(covariate) is not None]
        numeric = known and all(isinstance(value, float) for value in known)
        covariates.append(float(np.mean(known)) if numeric else known[0] if known else None)
    return values, covariates


def effect_rows(long: Sequence[Row], names: Sequence[str], statistic: str) -> list[Row]:
    """Effect of every covariate on every region: differences of all pairs of its levels, or a linear relation."""
    rows: list[Row] = []
    for covariate in names:
        tested: list[Row] = []
        for (quantity, region), own in by_region(long, statistic).items():
            values, levels = per_person(own, statistic, covariate)
            head = {"map": quantity, "region": region, "covariate": covariate}
            tested += [{**head, **effect} for effect in _effects(values, levels)]
        rows += _with_q(tested, ("map", "covariate", "contrast"))
    return rows


def _effects(values: np.ndarray, levels: Sequence[Any]) -> list[Row]:
    known = [level for level in levels if level is not None]
    if known and all(isinstance(level, float) for level in known):
        x = np.array([np.nan if level is None else level for level in levels], dtype=float)
        found = statistics.association(x, values)
        return [{"contrast": "linear", **asdict(found)}] if found else []
    texts = sorted({str(level) for level in known})
    if not 2 <= len(texts) <= _MOST_LEVELS:
        return []
    rows = []
    groups = {text: values[[str(level) == text for level in levels]] for text in texts}
    for i, first in enumerate(texts):
        for second in texts[i + 1 :]:
            delta = statistics.difference(groups[second], groups[first])
            if delta is not None:
                rows.append({"contrast": f"{second} - {first}", **asdict(delta)})
    return rows


#: A text column with more levels than these identifies people rather than groups them.
_MOST_LEVELS = 6


def _with_q(rows: list[Row], family: tuple[str, ...]) -> list[Row]:
    """Adjusted p values within every family of tests."""
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        families.setdefault(tuple(row.get(name) for name in family), []).append(row)
    for members in families.values():
        for row, q in zip(members, statistics.adjusted([row["p"] for row in members]), strict=True):
            row["q"] = float(q)
    return rows


def model_rows(long: Sequence[Row], formulas: Sequence[str], names: Sequence[str], statistic: str) -> list[Row]:
    """Every coefficient of every model in every region.

    The response of a formula is the name of a map; its right side names covariates.

    Raises
    ------
    ParameterError
        If a formula names an unknown map or covariate.
    """
    rows: list[Row] = []
    grouped = by_region(long, statistic)
    maps = list(dict.fromkeys(quantity for quantity, _ in grouped))
    for formula in formulas:
        response = formula.partition("~")[0].strip()
        statistics.formula_names(formula, [*maps, *names])
        if response not in maps:
            raise ParameterError(f"model {formula!r}: unknown map {response}; expected one of {', '.join(maps)}")
        tested: list[Row] = []
        for (quantity, region), own in grouped.items():
            if quantity != response:
                continue
            columns = {name: [row.get(name) for row in own] for name in names}
            columns[response] = [row[statistic] for row in own]
            fit = statistics.fit_model(formula, columns, [row["participant_id"] for row in own])
            if fit is not None:
                tested += _term_rows(formula, region, fit)
        rows += _with_q(tested, ("model", "term"))
    return rows


def _term_rows(formula: str, region: str, fit: statistics.Fit) -> list[Row]:
    return [
        {
            "model": formula, "region": region, "kind": fit.kind, "n": fit.n, "participants": fit.participants,
            "explained": fit.explained, "converged": fit.converged, "term": term.name, "estimate": term.estimate,
            "error": term.error, "low": term.low, "high": term.high, "p": term.p,
        }
        for term in fit.terms
    ]  # fmt: skip


def agreement_rows(long: Sequence[Row], statistic: str) -> list[Row]:
    """Agreement of the first two sessions of all participants who have them."""
    rows = []
    for (quantity, region), own in by_region(long, statistic).items():
        first, second = session_pairs(own, statistic)
        found = statistics.agreement(first, second)
        if found is not None:
            rows.append({"map": quantity, "region": region, **asdict(found)})
    return rows


def session_pairs(rows: Sequence[Row], statistic: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of the first and the second session, participant by participant."""
    people: dict[str, dict[str, float]] = {}
    for row in rows:
        if "session_id" in row:
            people.setdefault(row["participant_id"], {}).setdefault(row["session_id"], row[statistic])
    pairs = [[own[session] for session in sorted(own)[:2]] for own in people.values() if len(own) > 1]
    both = np.array(pairs, dtype=float).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def summary_rows(long: Sequence[Row], statistic: str) -> list[Row]:
    """Number, mean, standard deviation and median over scans of every map and region."""
    rows = []
    for (quantity, region), own in by_region(long, statistic).items():
        values = np.array([row[statistic] for row in own])
        people = len({row["participant_id"] for row in own})
        sd = float(values.std(ddof=1)) if values.size > 1 else None
        head = {"map": quantity, "region": region, "scans": values.size, "participants": people}
        middle = {"mean": float(values.mean()), "sd": sd, "median": float(np.median(values))}
        rows.append({**head, **middle, "min": float(values.min()), "max": float(values.max())})
    return rows


def covariate_names(covariates: Mapping[str, Row]) -> list[str]:
    """Covariates that can be columns of a model, in the order of the table."""
    names = dict.fromkeys(name for row in covariates.values() for name in row)
    return [name for name in names if name.isidentifier()]


def write_tables(out_dir: Path, tables: Mapping[str, Sequence[Row]], dictionary: Mapping[str, Any]) -> dict[str, Path]:
    """Write every table that has rows, with its data dictionary; one that has none any more goes away."""
    written = {}
    for name, rows in tables.items():
        path = out_dir / f"group_{name}_stats.tsv"
        if not rows:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
            continue
        columns = dict.fromkeys(column for row in rows for column in row)
        write_json(path.with_suffix(".json"), {column: _meaning(column, dictionary) for column in columns})
        written[name] = write_text(path, table_text(rows))
    return written


def _meaning(column: str, dictionary: Mapping[str, Any]) -> Any:
    if column in dictionary:
        return dictionary[column]
    parts = column.split(".")
    statistic = parts[-1]
    known = {**VALUE_COLUMNS, **REGION_COLUMNS, **_MEANING}
    if len(parts) == 3 and statistic in known:
        return {"Description": f"{parts[0]} in {parts[1]}: {known[statistic]}"}

    return {"Description": known.get(column, column)}
