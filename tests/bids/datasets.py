"""Small BIDS datasets with real NIfTI headers, made by a few lines in a test."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE = (6, 5, 4)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def phase_image(shape: tuple[int, ...] = SHAPE, seed: int = 1) -> np.ndarray:
    """Siemens steps that reach both ends of their scale, as int16."""
    steps = np.random.default_rng(seed).integers(-2048, 2048, shape) * 2
    steps.flat[:2] = -4096, 4094
    return steps.astype(np.int16)


def magnitude_image(shape: tuple[int, ...] = SHAPE, seed: int = 2) -> np.ndarray:
    """Positive integers."""
    return np.random.default_rng(seed).integers(50, 400, shape).astype(np.int16)


def write_image(
    path: Path,
    values: np.ndarray,
    *,
    affine: np.ndarray = AFFINE,
    codes: tuple[int, int] = (1, 1),
    slope: tuple[float, float] | None = None,
    qform: np.ndarray | None = None,
) -> Path:
    """Write a NIfTI file whose stored numbers are exactly ``values``; ``codes`` are those of sform and qform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine if qform is None else qform, codes[1])
    content = bytearray(image.to_bytes())
    content[112:120] = np.array(slope or (1.0, 0.0), dtype="<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(content), mtime=0) if path.name.endswith(".gz") else bytes(content))
    return path


def write_json(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


class Dataset:
    """A BIDS dataset in ``root`` that grows by method calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        description = {"Name": "made for a test", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        write_json(root / "dataset_description.json", description)
        (root / "README").write_text("A dataset made for a test.\n")

    def path(self, stem: str, suffix: str, *, datatype: str = "anat", extension: str = ".nii.gz") -> Path:
        """File of ``stem`` (``sub-1_ses-a_acq-x``) in the folder that its name demands."""
        labels = dict(pair.split("-", 1) for pair in stem.split("_"))
        folder = self.root / f"sub-{labels['sub']}"
        if "ses" in labels:
            folder /= f"ses-{labels['ses']}"
        return folder / datatype / f"{stem}_{suffix}{extension}"

    def image(
        self, stem: str, suffix: str, values: np.ndarray, metadata: dict[str, Any] | None = None, **header: Any
    ) -> Path:
        """Write an image and, unless ``metadata`` is ``None``, its sidecar."""
        location = {key: header.pop(key) for key in ("datatype", "extension") if key in header}
        path = write_image(self.path(stem, suffix, **location), values, **header)
        if metadata is not None:
            write_json(path.with_name(path.name.split(".")[0] + ".json"), metadata)
        return path

    def gradient_echo(
        self,
        stem: str = "sub-1",
        suffix: str = "MEGRE",
        echo_times: Sequence[float] = (0.004, 0.008, 0.012),
        *,
        field_strength: float | None = 3.0,
        parts: Sequence[str] = ("mag", "phase"),
        labels: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
        datatype: str = "anat",
        shape: tuple[int, int, int] = SHAPE,
    ) -> list[Path]:
        """A complete acquisition; part ``""`` writes a magnitude without ``part``. Returns the files."""
        labels = labels or [str(n + 1) for n in range(len(echo_times))]
        written = []
        for number, (label, time) in enumerate(zip(labels, echo_times, strict=True)):
            common: dict[str, Any] = {"EchoTime": time, **(metadata or {})}
            if field_strength is not None:
                common["MagneticFieldStrength"] = field_strength
            for part in parts:
                name = stem + (f"_echo-{label}" if label else "") + (f"_part-{part}" if part else "")
                values = magnitude_image(shape, number) if part in ("", "mag") else phase_image(shape, 10 + number)
                own = {**common, "Units": "arbitrary"} if part == "phase" else common
                written.append(self.image(name, suffix, values, own, datatype=datatype))
        return written
