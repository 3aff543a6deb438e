"""Programs on the PATH, played by small scripts."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from qsmxt.errors import MissingProgramError, QSMxTError
from qsmxt.external import fastsurfer, freesurfer, synthseg


def install(folder, name, script):
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize("engine", [synthseg, fastsurfer, freesurfer])
def test_a_missing_program_is_named_with_advice(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgramError, match=f"{engine.PROGRAM}: .*install F.*--seg-method atlas"):
        engine.check()


def test_synthseg_is_called_with_the_image(monkeypatch, tmp_path):
    install(tmp_path / "bin", "mri_synthseg", 'echo "$@" > "$4"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    made = synthseg.segment(tmp_path / "in.nii.gz", tmp_path, threads=3)
    words = made.read_text().split()
    assert words[:4] == ["--i", str(tmp_path / "in.nii.gz"), "--o", str(made)] and words[-1] == "3"


def test_labels_of_fastsurfer_become_nifti(monkeypatch, tmp_path):
    affine = np.array([[-1, 0, 0, 8.0], [0, 0, 1, -9], [0, -1, 0, 7], [0, 0, 0, 1]])
    labels = np.random.default_rng(0).integers(0, 2035, (8, 8, 8)).astype(np.int32)
    nib.save(nib.MGHImage(labels, affine), tmp_path / "made.mgz")
    mri = tmp_path / "subject" / "mri"
    install(
        tmp_path / "bin",
        "run_fastsurfer.sh",
        f"mkdir -p {mri}; cp {tmp_path}/made.mgz {mri}/aparc.DKTatlas+aseg.deep.mgz",
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    image = nib.load(fastsurfer.segment(tmp_path / "in.nii.gz", tmp_path))
    assert np.array_equal(image.get_fdata(), labels) and np.allclose(image.affine, affine)


def test_a_program_that_fails_is_quoted(monkeypatch, tmp_path):
    install(tmp_path / "bin", "recon-all", "echo license file missing; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    with pytest.raises(QSMxTError, match=r"(?s)recon-all ended with code 3.*license file missing"):
        freesurfer.segment(tmp_path / "in.nii.gz", tmp_path)
