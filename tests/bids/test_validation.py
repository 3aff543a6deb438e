"""The official validator, where it is installed and where it is not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qsmxt.bids.validation import find_validator, validate
from qsmxt.errors import ValidationError
from tests.bids.datasets import Dataset


def test_the_validator_names_faults(tmp_path: Path) -> None:
    if find_validator() is None:
        pytest.skip("bids-validator-deno is not installed")
    dataset = Dataset(tmp_path / "raw")
    dataset.gradient_echo(echo_times=(0.004, 0.008))
    assert validate(dataset.root) == []
    (dataset.root / "sub-1" / "anat" / "sub-1_part-phase_nonsense.nii.gz").write_bytes(b"")
    errors = validate(dataset.root)
    assert errors and all("nonsense" in error for error in errors)


def test_no_validator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_validator() is None
    assert validate(tmp_path) == []
    assert "skipped" in caplog.text


def test_a_validator_that_fails_is_no_valid_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qsmxt.bids.validation.find_validator", lambda: tmp_path / "program")
    failed = subprocess.CompletedProcess([], 139, stdout="", stderr="it broke")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValidationError, match=r"139.*it broke.*--skip-bids-validation"):
        validate(tmp_path)
