"""The command qsmxt-convert, from its arguments to its exit code."""

from __future__ import annotations

import io
import subprocess
import sys
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
