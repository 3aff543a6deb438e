"""Segmentation by FreeSurfer's recon-all (Fischl 2012, doi:10.1016/j.neuroimage.2012.01.021); it takes hours."""

from __future__ import annotations

import shutil
from pathlib import Path

from qsmxt.external.programs import as_nifti, call, require

PROGRAM = "recon-all"
ADVICE = "install FreeSurfer and source its SetUpFreeSurfer.sh, or use --seg-method atlas"
REFERENCES = ("fischl2012",)


def check() -> str:
    """Path of the program, or an error that says how to get it."""
    return require(PROGRAM, ADVICE)


def segment(t1w: Path, folder: Path, threads: int = 1) -> Path:
    """Labels (FreeSurfer's indices) of a T1-weighted image; an unfinished run is started over."""
    shutil.rmtree(folder / "subject", ignore_errors=True)
    command = [check(), "-i", str(t1w), "-s", "subject", "-sd", str(folder), "-all", "-openmp", str(threads)]
    call(command, folder / "freesurfer.log")
    return as_nifti(folder / "subject" / "mri" / "aparc+aseg.mgz", folder / "freesurfer.nii.gz")
