"""The index does not depend on how many processes make it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qsmxt.convert import index
from qsmxt.convert.index import build_index
from tests.convert.scanner import Exam, write_classic


def test_processes_give_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exam = Exam(np.diag([2.0, 2.0, 3.0, 1.0]))
    volumes = np.zeros((2, 4, 4, 40), dtype=np.uint16)
    write_classic(tmp_path, exam, volumes, [0.01, 0.02], series=1, manufacturer="SIEMENS", image_type=["A", "B", "M"])
    (tmp_path / "text").write_text("no image")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"\0" * 128 + b"DICM\x02\x00\x00\x00UL\x04\x00\xff\xff\xff\xff" + b"\xff" * 64)
    paths = sorted(tmp_path.iterdir())
    steps: list[tuple[int, int]] = []
    serial = build_index(paths, workers=1, done=lambda done, total: steps.append((done, total)))
    monkeypatch.setattr(index, "SERIAL_BELOW", 1)
    parallel = build_index(paths, workers=2)
    assert serial == parallel
    assert (len(serial.frames), serial.files) == (80, 82)
    assert serial.ignored + len(serial.problems) == 2
    assert steps[-1] == (82, 82) and steps == sorted(steps)
