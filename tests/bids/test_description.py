"""Files that describe the derivative dataset."""

from __future__ import annotations

import json
from pathlib import Path

from qsmxt.bids.description import write_bidsignore, write_dataset_description, write_descriptions
from qsmxt.registry.artifacts import ARTIFACTS
from tests.bids.datasets import Dataset


def test_dataset_files_do_not_depend_on_who_writes_them(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "raw")
    out = tmp_path / "out"
    contents = []
    for _ in range(2):
        paths = (
            write_dataset_description(out, dataset.root, "1.2"), write_bidsignore(out), write_descriptions(out)
        )  # fmt: skip
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["DatasetLinks"] == {"raw": "../raw"}
    assert description["GeneratedBy"] == [{"Name": "QSMxT", "Version": "1.2"}]
    assert description["SourceDatasets"] == [{"URL": "../raw"}]


def test_source_dataset_goes_by_its_doi(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "raw")
    path = dataset.root / "dataset_description.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "DatasetDOI": "doi:10.1/x"}))
    description = json.loads(write_dataset_description(tmp_path / "out", dataset.root, "1").read_text())
    assert description["SourceDatasets"] == [{"DOI": "doi:10.1/x"}]


def test_every_desc_has_a_meaning(tmp_path: Path) -> None:
    header, *rows = write_descriptions(tmp_path).read_text().splitlines()
    assert header == "desc_id\tdescription"
    meanings = dict(row.split("\t") for row in rows)
    assert {f"desc-{record.desc}" for record in ARTIFACTS.values() if record.desc} == set(meanings)
    assert all(meanings.values())
