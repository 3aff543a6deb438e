"""Segmentation by SynthSeg, which FreeSurfer 7.3 and later bring (Billot 2023, doi:10.1016/j.media.2023.102789)."""

from __future__ import annotations

from pathlib import Path

from qsmxt.external.programs import call, require

PROGRAM = "mri_synthseg"
ADVICE = "install FreeSurfer 7.3 or later and source its SetUpFreeSurfer.sh, or use --seg-method atlas"
REFERENCES = ("billot2023",)


def check() -> str:
    """Path of the program, or an error that says how to get it."""
    return require(PROGRAM, ADVICE)


def segment(t1w: Path, folder: Path, threads: int = 1) -> Path:
    """Labels (FreeSurfer's indices, 1 mm) of a T1-weighted image; the file lies in ``folder``."""
    result = folder / "synthseg.nii.gz"
    command = [check(), "--i", str(t1w), "--o", str(result), "--parc", "--cpu", "--threads", str(threads)]
    call(command, folder / "synthseg.log")
    return result
