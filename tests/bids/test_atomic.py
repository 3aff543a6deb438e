"""Readers never see half a file, whoever writes at the same time."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from qsmxt.bids.atomic import plain, write_json


def test_many_writers_and_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "dataset_description.json"
    content = {"Name": "x" * 200_000, "Values": list(range(100))}
    write_json(path, content)

    def write() -> None:
        for _ in range(20):
            write_json(path, content)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        assert json.loads(path.read_text()) == content
        reads += 1
    for writer in writers:
        writer.join()
    assert reads > 0
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        ((1, (2.0, np.int8(3))), [1, [2.0, 3]]),
        (float("nan"), None),
        (np.array([np.inf, 1.0]), [None, 1.0]),
        ({"a": Path("x"), "b": True, "c": None}, {"a": "x", "b": True, "c": None}),
        ({"z", "a"}, ["a", "z"]),
    ],
)
def test_what_json_does_not_know(value: object, expected: object) -> None:
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def test_keys_are_sorted(tmp_path: Path) -> None:
    first = write_json(tmp_path / "a.json", {"b": 1, "a": {"d": 1, "c": 2}}).read_bytes()
    second = write_json(tmp_path / "b.json", {"a": {"c": 2, "d": 1}, "b": 1}).read_bytes()
    assert first == second and first.endswith(b"}\n")
