"""Filter files in the dialect of the BIDS Apps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qsmxt.bids.filters import load_filter_file, matches, qsm_filter, t1w_filter
from qsmxt.errors import InputError, MissingInputError

IMAGE = {"subject": "1", "session": "01", "run": "02", "acquisition": "highres", "suffix": "MEGRE",
         "datatype": "anat", "extension": ".nii.gz"}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, True),
        ({"session": "01"}, True),
        ({"session": "ses-01"}, True),
        ({"session": "1"}, False),
        ({"run": 2}, True),
        ({"run": "2"}, True),
        ({"run": [1, 2]}, True),
        ({"run": 3}, False),
        ({"run": None}, False),
        ({"ceagent": None}, True),
        ({"ceagent": "*"}, False),
        ({"run": "*"}, True),
        ({"acquisition": ["lowres", None]}, False),
        ({"acquisition": "high"}, False),
        ({"acquisition": "^high", "regex_search": True}, True),
        ({"suffix": ["MEGRE", "T2starw"], "datatype": "anat", "extension": "nii.gz"}, True),
        ({"suffix": "T2starw"}, False),
    ],
)
def test_matches(wanted: dict[str, Any], expected: bool) -> None:
    assert matches(IMAGE, wanted) is expected


def write(path: Path, values: Any) -> Path:
    path.write_text(json.dumps(values))
    return path


def test_short_names_and_foreign_queries(tmp_path: Path) -> None:
    filters = load_filter_file(
        write(tmp_path / "f.json", {"qsm": {"acq": "x"}, "t1w": {"ses": "b"}, "bold": {"task": "r"}})
    )
    assert qsm_filter(filters) == {"acquisition": "x"}
    assert t1w_filter(filters) == {"session": "b"}


def test_session_that_all_queries_share_applies_to_gradient_echoes() -> None:
    by_session = {"t1w": {"session": "b", "suffix": "T1w"}, "bold": {"session": "b"}}
    assert qsm_filter(by_session) == {"session": "b"}
    assert qsm_filter({"t1w": {"session": "b"}, "bold": {"session": "c"}}) == {}
    assert qsm_filter({"t1w": {"suffix": "T1w"}}) == {}
    assert qsm_filter(None) == {}


def test_faulty_files(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"none\.json"):
        load_filter_file(tmp_path / "none.json")
    with pytest.raises(InputError, match="qsm"):
        load_filter_file(write(tmp_path / "f.json", {"qsm": ["x"]}))
    with pytest.raises(InputError, match="object"):
        load_filter_file(write(tmp_path / "g.json", [1]))
    (tmp_path / "h.json").write_text("{")
    with pytest.raises(InputError, match="line 1"):
        load_filter_file(tmp_path / "h.json")
