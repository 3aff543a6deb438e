"""The group level: gather what the participant level left in the output dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsmxt.bids.atomic import write_json
from qsmxt.bids.description import write_bidsignore
from qsmxt.bids.units import ProcessingUnit
from qsmxt.config import Settings
from qsmxt.reports.assemble import read_records
from qsmxt.workflows import tables
from qsmxt.workflows.cohort import Cohort, check_required, find_cohort, quality_rows, read_covariates
from qsmxt.workflows.dataset import write_citations
from qsmxt.workflows.group_provenance import write_group_provenance
from qsmxt.workflows.resources import Resources

logger = logging.getLogger("qsmxt")


def run_group(
    out_dir: Path,
    participants: Sequence[str] | None = None,
    *,
    bids_dir: Path | None = None,
    settings: Settings = Settings(),
    expected: Sequence[ProcessingUnit] = (),
    work_dir: Path | None = None,
    resources: Resources | None = None,
    facts: Mapping[str, Any] | None = None,
) -> int:
    """Make tables, template and report of the cohort; says who is missing.

    Parameters
    ----------
    out_dir
        Output dataset with the results of the participants.
    participants
        Labels to include; all if ``None``.
    bids_dir
        Source dataset with ``participants.tsv``; without it the one in ``out_dir`` counts.
    settings
        The table ``group`` of the settings.
    expected
        Units of the source dataset that should have results.
    work_dir, resources
        For the template, which is made only if both are given.
    facts
        Command line and start of the run, for the provenance.

    Returns
    -------
    code
        0 if everything was made, 1 if the template failed.

    Raises
    ------
    MissingInputError
        If there is nothing to gather, or less than the settings require.
    """
    out_dir = out_dir.absolute()
    cohort = find_cohort(out_dir, participants=participants, expected=expected)
    for name in cohort.missing:
        logger.warning("group: %s has no results; left out", name)
    check_required(cohort, settings.group.require)
    write_bidsignore(out_dir)
    roots = [root for root in (bids_dir, out_dir) if root is not None]
    content = make_tables(out_dir, cohort, settings, roots)
    made: dict[str, Any] = {"failed": ""}
    if settings.group.template and work_dir is not None and resources is not None:
        from qsmxt.workflows.template import make_template

        made = make_template(out_dir, cohort, settings, work_dir, resources)
    if settings.group.voxelwise and settings.group.models:
        content["voxelwise"] = voxelwise_tests(out_dir, cohort, settings, roots, made)
    write_json(
        out_dir / "logs" / "group" / "cohort.json",
        {
            "scans": [scan.name for scan in cohort.scans],
            "missing": list(cohort.missing),
            "template": made.get("members", []),
            "left_out_of_template": made.get("left_out", {}),
        },
    )
    write_citations(out_dir)
    write_page(out_dir, cohort, content, settings.group.statistic)
    write_group_provenance(out_dir, cohort, settings.group, bids_dir, facts or {})
    return 1 if made["failed"] else 0


def make_tables(
    out_dir: Path, cohort: Cohort, settings: Settings, roots: Sequence[Path]
) -> dict[str, list[dict[str, Any]]]:
    """Write all tables; returns their rows by name."""
    covariates, dictionary = read_covariates(cohort, roots)
    unknown = [scan.name for scan in cohort.scans if not covariates[scan.name]]
    if unknown and len(unknown) < len(cohort.scans):
        logger.warning("group: not in participants.tsv: %s", ", ".join(unknown))
    statistic = settings.group.statistic
    names = tables.covariate_names(covariates)
    long = tables.region_rows(cohort, covariates)
    if not long:
        logger.warning("group: no tables of regions in %s; there will be no statistics of regions", out_dir)
    content = {
        "long": long,
        "wide": tables.wide_rows(cohort, long, covariates) if long else [],
        "summary": tables.summary_rows(long, statistic),
        "effects": tables.effect_rows(long, names, statistic),
        "models": tables.model_rows(long, settings.group.models, names, statistic) if long else [],
        "agreement": tables.agreement_rows(long, statistic),
        "quality": quality_rows(cohort, read_records(out_dir)),
    }
    tables.write_tables(out_dir, content, dictionary)
    return content


def voxelwise_tests(
    out_dir: Path, cohort: Cohort, settings: Settings, roots: Sequence[Path], made: dict[str, Any]
) -> list[dict[str, Any]]:
    """Models at every voxel of the template, made now or before; writes their table and returns its rows."""
    from qsmxt.workflows.template import choose_scans
    from qsmxt.workflows.voxelwise import run_voxelwise

    members = made.get("members") or [scan.name for scan in choose_scans(cohort)[0]]
    covariates, dictionary = read_covariates(cohort, roots)
    rows = [] if made["failed"] else run_voxelwise(out_dir, members, covariates, settings.group)
    tables.write_tables(out_dir, {"voxelwise": rows}, dictionary)
    return rows


def write_page(out_dir: Path, cohort: Cohort, content: dict[str, list[dict[str, Any]]], statistic: str) -> None:
    """The page of the group; a failure here loses no table."""
    from qsmxt.reports.group import write_group_report

    try:
        write_group_report(out_dir, content, cohort.missing, statistic)
    except Exception:
        logger.exception("the page of the group could not be written")
