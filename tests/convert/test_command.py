"""The command qsmxt-convert, from its arguments to its exit code."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from rich.console import Console

from qsmxt.cli import convert as command
from qsmxt.cli.convert import main
from qsmxt.convert.nifti import NiftiSettings, read_nifti_table
from qsmxt.convert.nifti_table import check_table
from qsmxt.phantom.head import Head
from tests.convert.scanner import Exam, write_siemens


@pytest.fixture
def source(head: Head, tmp_path: Path) -> Path:
    write_siemens(tmp_path / "src", Exam(head.affine, "p"), head.magnitude, head.wrapped_phase, head.echo_times)
    return tmp_path / "src"


def answers(*texts: str) -> object:
    left: Iterator[str] = iter(texts)
    return lambda prompt: next(left, None)


def test_dry_run_prints_the_plan_and_writes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dicom", str(source), str(tmp_path / "bids"), "--dry-run", "--session-pattern", "none"]) == 0
    assert not (tmp_path / "bids").exists()
    out = capsys.readouterr().out
    assert "sub-p/anat/sub-p_acq-GREQSM_echo-03_part-phase_MEGRE.nii.gz" in out
    assert "M/ND/NORM" in out and "3 (4, 10, 16)" in out


def test_mapping_is_saved_and_replayed(source: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.tsv"
    assert main(["dicom", str(source), str(tmp_path / "a"), "--yes", "--save-mapping", str(mapping)]) == 0
    assert mapping.read_text() == (tmp_path / "a" / "code" / "qsmxt-convert" / "mapping.tsv").read_text()
    mapping.write_text(mapping.read_text().replace("GREQSM", "renamed"))
    assert main(["dicom", str(source), str(tmp_path / "b"), "--mapping", str(mapping), "--subject-pattern", "."]) == 0
    names = sorted(p.name for p in (tmp_path / "b").rglob("*.nii.gz"))
    assert names[0] == "sub-p_ses-20240315_acq-renamed_echo-01_part-mag_MEGRE.nii.gz" and len(names) == 6


def test_exit_code_tells_that_something_was_not_converted(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "damaged").write_bytes(sorted((source / "mag").iterdir())[0].read_bytes()[:500])
    assert main(["dicom", str(source), str(tmp_path / "bids"), "-y"]) == 1
    assert "damaged" in capsys.readouterr().err
    assert len(list((tmp_path / "bids").rglob("*.nii.gz"))) == 6


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["dicom", "nowhere", "bids"], 66),
        (["dicom", ".", "bids", "--subject-pattern", "("], 64),
        (["nifti", ".", "bids"], 18),
        (["nifti", ".", "bids", "--pattern", "sub"], 64),
        (["export", "nowhere.nii", "out"], 66),
    ],
)
def test_errors_are_sentences_and_exit_codes(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert capsys.readouterr().err.startswith("qsmxt-convert: ")
    assert list(tmp_path.iterdir()) == []


def test_review_on_a_terminal(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    monkeypatch.setattr(command, "read_line", answers("all ses=", "2 acq=x", "bananas", "undo", "ok"))
    assert main(["dicom", str(source), str(tmp_path / "bids")]) == 0
    assert (tmp_path / "bids" / "sub-p" / "anat" / "sub-p_acq-GREQSM_echo-01_part-mag_MEGRE.nii.gz").exists()
    monkeypatch.setattr(command, "read_line", answers())  # end of the input
    assert main(["dicom", str(source), str(tmp_path / "none")]) == 0
    assert not (tmp_path / "none").exists()


def write_parts(head: Head, folder: Path) -> Path:
    """Magnitude and phase, all echoes in one file each."""
    folder.mkdir()
    for name, image in (("mag", head.magnitude), ("phase", head.wrapped_phase)):
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(image, 0, -1), head.affine), folder / f"{name}.nii")
    return folder


def test_table_of_nifti_is_reviewed_saved_and_replayed(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_parts(head, tmp_path / "src")
    values = ["--subject", "1", "--field-strength", "3", "--echo-times", "0.004", "0.010", "0.016"]
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    commands = ("1 part=bold", "1 EchoTime=0.005", "ok", "undo", "all acq=qsm", "3,6 skip", "names", "ok")
    monkeypatch.setattr(command, "read_line", answers(*commands))
    assert main(["nifti", str(source), str(tmp_path / "a"), *values]) == 0
    said = capsys.readouterr().err
    assert "not changed: mag.nii: part: expected one of" in said
    assert "not yet: " in said and "but 0.005 s in mag.nii" in said  # magnitude and phase of one echo differ
    assert "sub-1/anat/sub-1_acq-qsm_echo-02_part-phase_MEGRE.nii.gz" in said
    names = sorted(path.name for path in (tmp_path / "a").rglob("*.nii.gz"))
    assert len(names) == 4 and names[0] == "sub-1_acq-qsm_echo-01_part-mag_MEGRE.nii.gz"
    table = tmp_path / "a" / "code" / "qsmxt-convert" / "nifti.tsv"
    assert main(["nifti", str(source), str(tmp_path / "b"), "--yes", "--table", str(table)]) == 0
    assert sorted(path.name for path in (tmp_path / "b").rglob("*.nii.gz")) == names
    monkeypatch.setattr(command, "read_line", answers("quit"))
    assert main(["nifti", str(source), str(tmp_path / "c"), *values]) == 0
    assert not (tmp_path / "c").exists()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux, which gives the terminal, is not installed")
def test_review_in_a_terminal(head: Head, tmp_path: Path) -> None:
    """The program itself on a terminal of 100 columns: the table is drawn, edited by typing, and converted."""
    source = write_parts(head, tmp_path / "src")
    values = "--subject 1 --field-strength 3 --echo-times 0.004 0.010 0.016"
    call = f"{sys.executable} -m qsmxt.cli.convert nifti {source} {tmp_path / 'bids'} {values}"
    tmux = ["tmux", "-S", str(tmp_path / "socket")]

    def shown() -> str:
        return subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout

    def wait_for(text: str) -> str:
        for _ in range(600):
            if text in shown():
                return shown()
            time.sleep(0.2)
        raise AssertionError(f"{text!r} never came; the terminal shows\n{shown()}")

    run = f"{call}; echo exit $?; sleep 60"
    subprocess.run([*tmux, "new-session", "-d", "-x", "100", "-y", "50", run], check=True)
    try:
        screen = wait_for("convert? [ok")
        assert "mag.nii" in screen and "0.016" in screen and "3 skip" in screen
        subprocess.run([*tmux, "send-keys", "all acq=typed", "Enter"], check=True)
        wait_for("changed 6 lines")
        subprocess.run([*tmux, "send-keys", "ok", "Enter"], check=True)
        wait_for("exit 0")
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    assert len(list((tmp_path / "bids").rglob("sub-1_acq-typed_echo-*_MEGRE.nii.gz"))) == 6


def test_missing_values_are_asked_for_once(head: Head, tmp_path: Path) -> None:
    for name, image in (("mag", head.magnitude), ("phase", head.wrapped_phase)):
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(image, 0, -1), head.affine), tmp_path / f"{name}.nii")
    rows = read_nifti_table(tmp_path, NiftiSettings())
    prompts: list[str] = []
    order = {"sub": ["7"], "EchoTime in s of echo 1": ["4 ms", "0.004"], "EchoTime in s of echo 2": ["0.010"],
             "EchoTime in s of echo 3": ["0.016"], "MagneticFieldStrength in T": ["3"]}  # fmt: skip

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return order[prompt.split(" for ")[0]].pop(0)

    command.ask_for_missing(rows, Console(file=io.StringIO()), ask)
    assert check_table(rows) == []
    assert len(prompts) == 6  # one of them twice, for the answer was no number
    assert [row.echo_time for row in rows] == [0.004, 0.010, 0.016] * 2


def test_nifti_and_export(head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "src").mkdir()
    for name, image in (("mag", head.magnitude), ("phase", head.wrapped_phase)):
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(image, 0, -1), head.affine), tmp_path / "src" / f"{name}.nii")
    arguments = ["nifti", str(tmp_path / "src"), str(tmp_path / "bids"), "--subject", "1", "--field-strength", "3"]
    assert main(arguments) == 65
    assert "EchoTime: missing" in capsys.readouterr().err
    assert main([*arguments, "--echo-times", "0.004", "0.010", "0.016", "--dry-run"]) == 0
    assert "mag.nii, volume 2 -> sub-1/anat/sub-1_echo-03_part-mag_MEGRE.nii.gz" in capsys.readouterr().out
    assert main([*arguments, "--echo-times", "0.004", "0.010", "0.016"]) == 0
    image = tmp_path / "bids" / "sub-1" / "anat" / "sub-1_echo-01_part-mag_MEGRE.nii.gz"
    assert main(["export", str(image), str(tmp_path / "dicom"), "--description", "first echo"]) == 0
    assert len(list((tmp_path / "dicom").iterdir())) == head.magnitude.shape[3]


def test_help_is_quick_and_imports_no_array_library() -> None:
    code = "import sys; from qsmxt.cli.convert import build_parser; build_parser().format_help(); " \
           "print([m for m in ('numpy', 'pydicom', 'nibabel', 'numba') if m in sys.modules])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
