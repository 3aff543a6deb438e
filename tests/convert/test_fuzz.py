"""Damaged files and tables: each costs what it says itself, never the table of the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qsmxt.convert.classification import classify
from qsmxt.convert.headers import read_frames
from qsmxt.convert.mapping import apply_mapping, load_mapping
from qsmxt.convert.naming import assign_labels
from qsmxt.convert.nifti_table import NiftiRow, fill_from_table
from qsmxt.convert.plan import make_plan
from qsmxt.convert.volumes import sort_volumes
from qsmxt.errors import QSMxTError
from tests.convert.frames import series
from tests.convert.scanner import Exam, write_classic, write_siemens, write_siemens_xa

FUZZ = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CHANGES = st.lists(st.tuples(st.integers(0, 2500), st.binary(min_size=1, max_size=4)), max_size=8)
EXAM = Exam(np.diag([2.0, 2.0, 3.0, 1.0]))


def damaged(content: bytes, changes: Sequence[tuple[int, bytes]], length: int) -> bytes:
    changed = bytearray(content)
    for position, value in changes:
        changed[position : position + len(value)] = value
    return bytes(changed[:length])


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], list[bytes]]:
    """Classic and multi-frame files."""
    folder = tmp_path_factory.mktemp("scans")
    images = np.linspace(0, 1, 2 * 4 * 4 * 2).reshape(2, 4, 4, 2)
    write_siemens(folder / "classic", EXAM, images, images, [0.004, 0.01])
    write_siemens_xa(folder / "enhanced", EXAM, images, images, [0.004, 0.01])
    classic, enhanced = (
        [path.read_bytes() for path in sorted((folder / kind).rglob("*")) if path.is_file()]
        for kind in ("classic", "enhanced")
    )
    return classic, enhanced


@FUZZ
@given(changes=CHANGES, length=st.integers(100, 6000), which=st.integers(0, 7), enhanced=st.booleans())
def test_damaged_files_do_not_stop_the_table(
    scans: tuple[list[bytes], list[bytes]], tmp_path: Path, changes: list[tuple[int, bytes]], length: int, which: int,
    enhanced: bool,
) -> None:  # fmt: skip
    classic, multiframe = scans
    victim = multiframe[which % 2] if enhanced else classic[which]
    contents = [*classic, damaged(victim, changes, length)]
    frames = []
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}"
        path.write_bytes(content)
        try:
            frames += read_frames(path)
        except QSMxTError as error:
            assert number == len(contents) - 1 and path.name in str(error)
    rows = classify(frames)
    assign_labels(rows)
    try:
        make_plan(rows)
    except QSMxTError as error:
        assert "series" in str(error)


def test_copies_without_pixels_do_not_stop_the_table(tmp_path: Path) -> None:
    """Two files that claim to be the same image, and neither has its pixels."""
    volume = np.ones((1, 4, 4, 2), dtype=np.uint16)
    given = {"series": 1, "manufacturer": "SIEMENS", "image_type": ["A", "B", "M"]}
    path, _ = write_classic(tmp_path / "a", EXAM, volume, [0.01], **given)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\xe0\x7f\x10\x00")])
    frames = [*read_frames(path), *read_frames(path)]
    frames[1].source.sop_uid = "9.9"
    (found,) = sort_volumes(frames)
    assert [volume.repetitions for volume in found.volumes] == [2, 2] or found.warnings


@FUZZ
@given(changes=CHANGES, length=st.integers(0, 200), toml=st.booleans())
def test_damaged_mappings_are_refused_or_applied(
    tmp_path: Path, changes: list[tuple[int, bytes]], length: int, toml: bool
) -> None:
    table = b"protocol\ttype\tsuffix\tsub\trun\nG*\tauto\tauto\tsub-1\t1\n*\tskip\tauto\tauto\tn/a\n"
    text = b'[[series]]\nprotocol = "G*"\ntype = "mag"\nrun = 1\n[[series]]\ntype = "skip"\n'
    path = tmp_path / ("mapping.toml" if toml else "mapping.tsv")
    near = [(position % len(text), value) for position, value in changes]
    path.write_bytes(damaged(text if toml else table, near, length))
    rows = classify([*series(2), *series(3, "phase")])
    assign_labels(rows)
    try:
        apply_mapping(rows, load_mapping(path), path.name)
    except QSMxTError as error:
        assert path.name in str(error)


@FUZZ
@given(changes=CHANGES, length=st.integers(0, 100))
def test_damaged_tables_of_nifti_are_refused_or_applied(
    tmp_path: Path, changes: list[tuple[int, bytes]], length: int
) -> None:
    text = b"path\tvolume\tsub\techo\tEchoTime\tpart\nmag.nii\t0\t1\t1\t0.004\tmag\n"
    path = tmp_path / "table.tsv"
    path.write_bytes(damaged(text, [(position % len(text), value) for position, value in changes], length))
    try:
        fill_from_table([NiftiRow("mag.nii")], path)
    except QSMxTError as error:
        assert path.name in str(error) or "mag.nii" in str(error)
