"""A state carries arrays and their history, and two equal texts mean equal work."""

from __future__ import annotations

import numpy as np
import pytest

from qsmxt.geometry import Grid
from qsmxt.interfaces.state import State, describe_grid, digest, digest_files, save_arrays

GRID = Grid((2, 3, 4), (1.0, 1.5, 2.0), (0.0, 0.6, 0.8))


def _state(**changes) -> State:
    return State(**{"fingerprint": "f", "grid": describe_grid(GRID), "affine": np.eye(4).tolist(), **changes})


def test_text_and_back(tmp_path):
    state = _state(arrays=save_arrays(tmp_path, {"chi": np.ones((2, 3, 4), np.float32)}), notes=["a"])
    assert State.from_json(state.to_json()) == state
    assert state.sampling() == GRID


def test_loaded_arrays_may_be_written_to_without_changing_the_file(tmp_path):
    state = _state(arrays=save_arrays(tmp_path, {"chi": np.zeros((2, 3, 4), np.float32), "b": np.float64(3.0)}))
    loaded = state.load("chi")
    loaded += 1
    assert type(loaded) is np.ndarray and loaded.flags.writeable
    assert not np.any(state.load("chi")) and state.load("b") == 3.0 and state.load("absent") is None


def test_extension_appends_and_leaves_the_original_alone():
    state = _state(notes=["a"], statistics={"x": 1})
    after = state.extended({"chi": "file"}, fingerprint="g", notes=["b"], statistics={"y": 2})
    assert (after.notes, after.statistics, after.fingerprint) == (["a", "b"], {"x": 1, "y": 2}, "g")
    assert state.notes == ["a"] and state.arrays == {}


def test_union_keeps_what_is_shared_once_and_depends_on_both():
    step = {"method": "a"}
    first = _state(arrays={"x": "1"}, steps=[step], notes=["n"])
    second = _state(fingerprint="g", arrays={"y": "2"}, steps=[step, {"method": "b"}], notes=["n", "m"])
    both = first.united(second)
    assert both.steps == [step, {"method": "b"}] and both.notes == ["n", "m"] and both.arrays == {"x": "1", "y": "2"}
    assert len({both.fingerprint, first.united(first).fingerprint, first.fingerprint}) == 3


@pytest.mark.parametrize("pair", [(1e-12, 2e-12), (0.1, 0.1 + 1e-16 * 2), (1, "1"), ([1, 2], [2, 1]), (None, 0)])
def test_digest_tells_apart_what_differs(pair):
    assert digest(pair[0]) != digest(pair[1])
    assert digest(pair[0]) == digest(pair[0])


def test_digest_of_files_is_of_contents_names_and_order(tmp_path):
    one, two, other = tmp_path / "1", tmp_path / "2", tmp_path / "other"
    one.write_bytes(b"ab"), two.write_bytes(b"c"), other.mkdir()
    (other / "1").write_bytes(b"ab")
    files = [str(one), str(two)]
    assert digest_files(files) == digest_files([str(other / "1"), str(two)]), "not of folders and times"
    assert digest_files(files) != digest_files(files[::-1])
    one.write_bytes(b"a"), two.write_bytes(b"bc")
    changed = digest_files(files)
    one.write_bytes(b"ab"), two.write_bytes(b"c")
    assert changed != digest_files(files)
