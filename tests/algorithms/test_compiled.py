"""Where compiled kernels are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qsmxt import __version__
from qsmxt.algorithms import compiled


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    folder = tmp_path / "image" / "field_0a"
    folder.mkdir(parents=True)
    (folder / "fit-10.py312.nbi").write_bytes(b"index")
    (folder / "fit-10.py312.1.nbc").write_bytes(b"code")
    return folder.parent


@pytest.fixture
def read_only(filled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The filled folder as the folder to use, and nothing but it refusing to be written."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(filled))
    original = compiled._writable
    monkeypatch.setattr(compiled, "_writable", lambda folder: folder != filled and original(folder))
    return filled


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_filled_read_only_cache_is_copied_home(
    read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert compiled._choose_cache()
    used = Path(compiled.os.environ["NUMBA_CACHE_DIR"])
    assert used == tmp_path / "cache" / "qsmxt" / f"numba-{__version__}"
    assert contents(used) == contents(read_only)


def test_what_was_compiled_since_is_kept(read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index = tmp_path / "cache" / "qsmxt" / f"numba-{__version__}" / "field_0a" / "fit-10.py312.nbi"
    index.parent.mkdir(parents=True)
    index.write_bytes(b"newer")
    assert compiled._choose_cache()
    assert index.read_bytes() == b"newer"


def test_without_a_home_it_is_copied_to_a_temporary_folder(
    read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(compiled.tempfile, "tempdir", str(tmp_path / "scratch"))
    assert compiled._choose_cache()
    used = Path(compiled.os.environ["NUMBA_CACHE_DIR"])
    assert used.parent == tmp_path / "scratch"
    assert contents(used) == contents(read_only)
    compiled._remove(used, -1)
    assert used.exists(), "another process owns it"
    compiled._remove(used, compiled.os.getpid())
    assert not used.exists()


def test_an_empty_read_only_cache_is_not_used(read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in read_only.rglob("*.nb?"):
        path.unlink()
    compiled._choose_cache()
    assert compiled.os.environ.get("NUMBA_CACHE_DIR") != str(read_only)


FIT = """
import hashlib
import numpy as np
from qsmxt.algorithms.field.linear_fit import linear_fit
from qsmxt.geometry import Grid
rng = np.random.default_rng(0)
times = np.array([0.005, 0.011, 0.017])
phase = (rng.uniform(-900, 900, (6, 6, 7)) * times[:, None, None, None] + rng.normal(size=(3, 6, 6, 7))).astype("f4")
maps = linear_fit(phase, rng.uniform(1, 9, phase.shape).astype("f4"), times, 3.0, Grid((6, 6, 7)))
print(hashlib.sha256(b"".join(m.tobytes() for m in maps)).hexdigest())
"""


def test_a_run_that_compiles_has_the_bytes_of_one_that_reads_the_cache(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", FIT], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert len(runs[0].strip()) == 64
    assert runs[0] == runs[1]
