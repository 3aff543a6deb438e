"""The brainlife executable: config.json becomes a BIDS dataset and a command line that qsmxt understands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from qsmxt.bids.queries import find_units
from qsmxt.cli.arguments import build_parser

ROOT = Path(__file__).resolve().parents[2]
TIMES = [0.005, 0.012, 0.02]


def launch(folder: Path, config: dict[str, Any], code: int = 0, program: str = "qsmxt") -> list[str]:
    """Run ``main`` in ``folder``; returns the words that the program was given."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    (tools / program).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/words\nexit {code}\n')
    (tools / program).chmod(0o755)
    (folder / "config.json").write_text(json.dumps(config))
    environment = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin"}
    done = subprocess.run([sys.executable, str(ROOT / "main")], cwd=folder, env=environment, check=False)
    assert done.returncode == code
    words = folder / "words"
    return words.read_text().splitlines() if words.exists() else []


@pytest.fixture
def images(tmp_path: Path) -> dict[str, list[str]]:
    made: dict[str, list[str]] = {"magnitude": [], "phase": []}
    for part, value in (("magnitude", 100.0), ("phase", 1.0)):
        for echo in (1, 2, 3):
            path = tmp_path / f"{part}{echo}.nii.gz"
            nib.Nifti1Image(np.full((4, 4, 4), value * echo, np.float32), np.eye(4)).to_filename(path)
            path.with_name(f"{part}{echo}.json").write_text(json.dumps({"MagneticFieldStrength": 3.0}))
            made[part].append(path.name)
    return made


def test_the_example_is_understood(tmp_path: Path, images: dict[str, list[str]]) -> None:
    example = json.loads((ROOT / "config.json.example").read_text())
    del example["t1"]
    words = launch(tmp_path, {**example, **images})
    namespace = build_parser().parse_intermixed_args(words)
    assert namespace.analysis_level == ["participant"]
    assert namespace.flags == {
        "acquisition": {"field_strength": 3.0},
        "outputs": {"swi": True, "r2star": True},
        "execution": {"nprocs": 4},
    }
    assert namespace.mem == 8.0
    assert namespace.output_dir == Path("output")


def test_the_dataset_holds_the_echoes_in_order(tmp_path: Path, images: dict[str, list[str]]) -> None:
    inputs = [{"id": "mag", "meta": {"subject": "A_1", "session": "2"}}]
    launch(tmp_path, {**images, "echo_times": TIMES, "_inputs": inputs, "_app": "x"})
    selection = find_units(tmp_path / "bids")
    assert [unit.name for unit in selection.units] == ["sub-A1_ses-2_MEGRE"]
    assert [not_used.error for not_used in selection.rejected] == []
    first = tmp_path / "bids" / "sub-A1" / "ses-2" / "anat" / "sub-A1_ses-2_echo-3_part-mag_MEGRE.nii.gz"
    assert np.all(nib.load(first).get_fdata() == 300)
    sidecar = json.loads(first.with_name(first.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar == {"MagneticFieldStrength": 3.0, "EchoTime": 0.02}


def test_switches_lists_and_empty_values(tmp_path: Path) -> None:
    words = launch(tmp_path, {"bids": "data", "qsm": False, "swi": True, "preset": "", "mem": None,
                              "output_spaces": ["T1w", "A"]})  # fmt: skip
    assert words[0] == "data"
    assert words[words.index("--skip-bids-validation") + 1 :] == ["--no-qsm", "--swi", "--output-spaces", "T1w", "A"]


def test_different_numbers_of_images_are_refused(tmp_path: Path, images: dict[str, list[str]]) -> None:
    assert launch(tmp_path, {"magnitude": images["magnitude"][:2], "phase": images["phase"]}, code=66) == []


def test_the_code_of_the_program_is_handed_on(tmp_path: Path) -> None:
    assert launch(tmp_path, {"bids": "data"}, code=18)[2] == "participant"


def test_without_the_program_the_container_of_this_version_runs(tmp_path: Path) -> None:
    words = launch(tmp_path, {"bids": "data"}, program="apptainer")
    image = json.loads((ROOT / "boutiques.json").read_text())["container-image"]["image"]
    assert words[0] == "run"
    assert words[words.index(f"docker://{image}") + 1 :][:3] == ["data", "output", "participant"]
