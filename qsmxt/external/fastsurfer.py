"""Segmentation by FastSurfer, without surfaces (Henschel et al. 2020, doi:10.1016/j.neuroimage.2020.117012)."""

from __future__ import annotations

from pathlib import Path

from qsmxt.external.programs import as_nifti, call, require

PROGRAM = "run_fastsurfer.sh"
ADVICE = "install FastSurfer and put its folder on the PATH, or use --seg-method atlas"
REFERENCES = ("henschel2020",)


def check() -> str:
    """Path of the program, or an error that says how to get it."""
    return require(PROGRAM, ADVICE)


def segment(t1w: Path, folder: Path, threads: int = 1) -> Path:
    """Labels (FreeSurfer's indices, cortex by the DKT protocol) of a T1-weighted image."""
    command = [
        check(), "--t1", str(t1w.absolute()), "--sid", "subject", "--sd", str(folder), "--seg_only", "--device", "cpu",
        "--threads", str(threads),
    ]  # fmt: skip
    call(command, folder / "fastsurfer.log")
    made = folder / "subject" / "mri" / "aparc.DKTatlas+aseg.deep.mgz"
    return as_nifti(made, folder / "fastsurfer.nii.gz")
