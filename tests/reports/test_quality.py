"""Metrics of a dataset: from the arrays to the table, each column explained."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from qsmxt.algorithms.statistics.quality_metrics import METRICS
from qsmxt.reports.assemble import read_records
from qsmxt.reports.interface import HISTOGRAM
from qsmxt.reports.quality import (
    NUCLEI,
    dictionary,
    metrics_of,
    read_quality,
    tissue_histograms,
    worst,
    write_quality_table,
)  # fmt: skip


def test_table_holds_what_was_measured_and_what_labels_add(dataset):
    table = write_quality_table(dataset, read_records(dataset))
    with table.open(newline="") as stream:
        (row,) = csv.DictReader(stream, delimiter="\t")
    assert (row["participant_id"], row["session_id"], row["acquisition_name"]) == ("sub-1", "n/a", "sub-1_MEGRE")
    assert float(row["snr"]) == pytest.approx(50, rel=0.1)
    assert float(row["chi_sd"]) == pytest.approx(0.03, rel=0.2)
    assert float(row["deep_grey_contrast"]) == pytest.approx(0.1, abs=0.015)
    assert float(row["field_noise"]) == pytest.approx(0.05)
    assert row["csf_sd"] == "n/a" and row["grade"] == "poor" and int(row["warnings"]) >= 2
    described = json.loads(table.with_suffix(".json").read_text())
    assert set(row) == set(described)


def test_nothing_measured_nothing_written(tmp_path):
    assert write_quality_table(tmp_path, []) is None and not list(tmp_path.iterdir())


def test_damaged_files_are_passed_over(tmp_path):
    folder = tmp_path / "logs/sub-1"
    folder.mkdir(parents=True)
    (folder / "a_quality.json").write_text('{"unit"')
    (folder / "b_quality.json").write_text("[1]")
    (folder / "c_quality.json").write_text('{"unit": "u", "metrics": {"snr": 30, "chi_sd": null}}')
    found = read_quality(tmp_path)
    assert list(found) == ["u"] and metrics_of(tmp_path, found["u"], []) == {"snr": 30.0}


def test_worst_grade_counts():
    assert worst({"snr": 50.0}) == "good" and worst({"snr": 10.0, "streaking": 1.0}) == "look"
    assert worst({"snr": 10.0, "streaking": 9.0}) == "poor" and worst({}) == "not measured"


def test_dictionary_gives_ranges_and_units():
    assert dictionary()["streaking"]["GoodRange"] == [None, 1.5]
    assert all(dictionary()[entry.key]["Description"] for entry in METRICS)


@pytest.mark.parametrize(
    ("name", "deep"),
    [("Left-Putamen", True), ("GPe_R", True), ("GPi", True), ("Right-Red-Nucleus", True), ("Left-Thalamus", False),
     ("Left-Cerebral-Cortex", False), ("Substantia nigra", True)],
)  # fmt: skip
def test_nuclei_are_known_by_name(name, deep):
    assert bool(NUCLEI.search(name)) == deep


def test_tissues_have_histograms_of_their_own(dataset):
    files = {name: file for record in read_records(dataset, "1") for name, file in record["files"].items()}
    found = tissue_histograms(dataset, files)
    assert set(found) == {"Deep grey matter", "Rest of the mask"}, "the table names no other label that is there"
    low, high, _ = HISTOGRAM
    for tissue, mean in (("Deep grey matter", 0.1), ("Rest of the mask", 0.0)):
        shares = np.array(found[tissue])
        centres = low + (np.arange(shares.size) + 0.5) * (high - low) / shares.size
        assert shares.sum() == pytest.approx(1)
        assert shares @ centres == pytest.approx(mean, abs=0.01)
    assert tissue_histograms(dataset, {"chi": files["chi"]}) == {}


def test_the_worst_registration_counts(tmp_path):
    known = {"similarity_gre_t1w": 0.7, "similarity_template": 0.4, "overlap_of_brain_masks": 0.9}
    record = {"files": {}, "statistics": {"registration": known}}
    found = metrics_of(tmp_path, [], [record, {"files": {}}])
    assert found == {"alignment_similarity": 0.4, "alignment_overlap": 0.9} and worst(found) == "look"
