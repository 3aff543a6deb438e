"""Where compiled kernels are kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qsmxt import __version__
from qsmxt.algorithms import kernel_cache


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
    original = kernel_cache._writable
    monkeypatch.setattr(kernel_cache, "_writable", lambda folder: folder != filled and original(folder))
    return filled


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_filled_read_only_cache_is_copied_home(
    read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kernel_cache.choose()
    used = Path(kernel_cache.os.environ["NUMBA_CACHE_DIR"])
    assert used == tmp_path / "cache" / "qsmxt" / f"numba-{__version__}"
    assert contents(used) == contents(read_only)


def test_what_was_compiled_since_is_kept(read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index = tmp_path / "cache" / "qsmxt" / f"numba-{__version__}" / "field_0a" / "fit-10.py312.nbi"
    index.parent.mkdir(parents=True)
    index.write_bytes(b"newer")
    assert kernel_cache.choose()
    assert index.read_bytes() == b"newer"


def test_without_a_home_it_is_copied_to_a_temporary_folder(
    read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(kernel_cache.tempfile, "tempdir", str(tmp_path / "scratch"))
    assert kernel_cache.choose()
    used = Path(kernel_cache.os.environ["NUMBA_CACHE_DIR"])
    assert used.parent == tmp_path / "scratch"
    assert contents(used) == contents(read_only)
    kernel_cache._remove(used, -1)
    assert used.exists(), "another process owns it"
    kernel_cache._remove(used, kernel_cache.os.getpid())
    assert not used.exists()


def test_an_empty_read_only_cache_is_not_used(read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in read_only.rglob("*.nb?"):
        path.unlink()
    kernel_cache.choose()
    assert kernel_cache.os.environ.get("NUMBA_CACHE_DIR") != str(read_only)


@pytest.mark.parametrize("module", ["qsmxt.workflows.preloaded", "qsmxt.algorithms.compiled"])
def test_the_compiler_is_imported_after_the_folder_is_chosen(module: str) -> None:
    """numba reads its settings when it is imported, so what chooses the folder must come first."""
    look = (
        f"import {module}, sys; names = list(sys.modules)\n"
        "print(names.index('qsmxt.algorithms.kernel_cache') < names.index('numba'))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
