"""BIDS datasets of small digital heads, for tests that run the whole command."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.faults import TAKEN
from qsmxt.phantom.head import Head, HeadSettings, simulate

ECHO_TIMES = (0.005, 0.011, 0.017)
VOXEL = 5.0


@functools.cache
def head(seed: int = 0, echo_times: tuple[float, ...] = ECHO_TIMES, voxel: float = VOXEL) -> Head:
    """A coarse digital head."""
    return simulate(HeadSettings(voxel_size=(voxel,) * 3, oversampling=1, echo_times=echo_times, seed=seed))


def write_description(root: Path) -> None:
    """The files that make a folder a dataset."""
    root.mkdir(parents=True, exist_ok=True)
    content = {"Name": "Digital heads", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(content))
    (root / "README").write_text("Simulated gradient-echo images of a digital head with known susceptibility. " * 3)


def write_subject(
    root: Path,
    subject: str,
    source: Head,
    *,
    session: str | None = None,
    without: Sequence[str] = (),
    magnitude_factor: float = 1.0,
) -> list[Path]:
    """Write all echoes of a head; ``without`` names metadata to leave out. Returns the images."""
    labels = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    folder = root / Path(*labels.split("_")) / "anat"
    folder.mkdir(parents=True)
    several = len(source.echo_times) > 1
    written = []
    for number, time in enumerate(source.echo_times):
        echo = f"_echo-{number + 1}" if several else ""
        suffix = "MEGRE" if several else "T2starw"
        for part, array in (("mag", source.magnitude * magnitude_factor), ("phase", source.wrapped_phase)):
            stem = folder / f"{labels}{echo}_part-{part}_{suffix}"
            image = nib.Nifti1Image(array[number].astype(np.float32), source.affine)
            content = gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
            written.append(stem.with_name(stem.name + ".nii.gz"))
            written[-1].write_bytes(content)
            metadata = {"EchoTime": time, "MagneticFieldStrength": source.field_strength}
            if part == "phase":
                metadata["Units"] = "rad"
            kept = {key: value for key, value in metadata.items() if key not in without}
            stem.with_name(stem.name + ".json").write_text(json.dumps(kept))
    return written


def write_spin_echo(root: Path, subject: str, source: Head, rate: float, times: Sequence[float]) -> None:
    """Write a train of spin echoes of a head, R2 being ``rate`` (1/s) everywhere in it."""
    folder = root / f"sub-{subject}" / "anat"
    for number, time in enumerate(times, 1):
        stem = folder / f"sub-{subject}_echo-{number}_MESE"
        signal = (1000 * np.exp(-rate * time) * source.head).astype(np.float32)
        content = gzip.compress(nib.Nifti1Image(signal, source.affine).to_bytes(), compresslevel=1, mtime=0)
        stem.with_name(stem.name + ".nii.gz").write_bytes(content)
        stem.with_name(stem.name + ".json").write_text(json.dumps({"EchoTime": time, "MagneticFieldStrength": 3.0}))


def contents(folder: Path, *, ignore: Sequence[str] = ()) -> dict[str, str]:
    """Digest of every file below ``folder`` whose path holds none of ``ignore``; short, so that a difference prints.

    What the steps took, which pages tell, is no part of it.
    """
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(TAKEN.sub(b"", path.read_bytes())).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part in path.as_posix() for part in ignore)
    }
