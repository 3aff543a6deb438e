"""Arrange the real datasets as BIDS, as a user would after conversion.

Every function takes the folder of the real data (fixture ``real_data``) and an empty folder, and returns the root
of a BIDS dataset in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

#: Echo times of the brain crop, s: stated in its source notes, not in its files.
BRAIN_CROP_ECHO_TIMES = (0.004, 0.008, 0.012)

_KEPT = (
    "EchoTime", "MagneticFieldStrength", "Manufacturer", "ManufacturersModelName", "RepetitionTime", "FlipAngle",
    "ImagingFrequency",
)  # fmt: skip


def start(root: Path, name: str) -> Path:
    """An empty BIDS dataset."""
    root.mkdir(parents=True, exist_ok=True)
    description = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "README").write_text(f"{name}, arranged for a test.\n")
    return root


def brain_crop(real_data: Path, root: Path, *, keep_slope: bool = True, field_strength: float = 3.0) -> Path:
    """In vivo brain, three echoes; the 4-D files are split, the odd stored units kept.

    ``keep_slope=False`` writes scaled values in float32 without a slope (+-0.0036743), as another program might.
    """
    source = real_data / "brain-crop-gre-3echo"
    start(root, "brain crop")
    for part, filename in (("mag", "Mag.nii"), ("phase", "Phase.nii")):
        image = nib.load(source / filename)
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        values = np.asanyarray(image.dataobj.get_unscaled() if keep_slope else image.dataobj)
        for number, time in enumerate(BRAIN_CROP_ECHO_TIMES, start=1):
            path = root / "sub-crop" / "anat" / f"sub-crop_echo-{number}_part-{part}_MEGRE.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            volume = nib.Nifti1Image(values[..., number - 1].astype(np.float32), image.affine)
            volume.set_sform(image.affine, 1)
            volume.set_qform(None, 0)
            nib.save(volume, path)
            if keep_slope:
                _write_slope(path, slope, intercept)
            metadata = {"EchoTime": time, "MagneticFieldStrength": field_strength}
            _write_sidecar(path, metadata, part)
    return root


def abdomen_philips(real_data: Path, root: Path, scans: tuple[str, ...] = ("philips_04", "philips_08")) -> Path:
    """Dual echo, one subject, a session per scan; phase in milliradians through the slope."""
    start(root, "abdomen, Philips")
    for scan in scans:
        folder = real_data / "abdomen-philips-dualecho" / scan
        session = scan.replace("_", "")
        for source in sorted(folder.glob("*_ph.nii.gz")):
            magnitude = source.with_name(source.name.replace("_ph.nii.gz", ".nii.gz"))
            _place(source, root, "phase", session=session)
            _place(magnitude, root, "mag", session=session)
    return root


def abdomen_siemens(real_data: Path, root: Path, scans: tuple[str, ...] = ("siemens_02", "siemens_03")) -> Path:
    """Dual echo, a run per shim; phase -4096..4094 through slope 2 and intercept -4096."""
    start(root, "abdomen, Siemens")
    for run, scan in enumerate(scans, start=1):
        folder = real_data / "abdomen-siemens-dualecho" / scan
        for source in sorted(folder.glob("*_e[12]*.nii.gz")):
            if "_roi" not in source.name:
                _place(source, root, "phase" if source.name.endswith("_ph.nii.gz") else "mag", run=str(run))
    return root


def abdomen_real_imag(real_data: Path, root: Path, *, cartesian: bool = True) -> Path:
    """Dual echo by Philips as real and imaginary part, or the same scan as magnitude and phase."""
    start(root, "abdomen, real and imaginary part")
    folder = real_data / "abdomen-philips-real-imag"
    parts = {"real": "_real", "imag": "_imaginary"} if cartesian else {"mag": "", "phase": "_ph"}
    for number in (1, 2):
        for part, ending in parts.items():
            _place(next(folder.glob(f"01001__*_e{number}{ending}.nii.gz")), root, part)
    return root


def head_ge(real_data: Path, root: Path, echo_times: tuple[float, ...] = (0.004608, 0.006912, 0.009216)) -> Path:
    """Whole head by GE, from its magnitude and the field map of the scanner, as GE would store the echoes.

    GE delivers this scan as a field map in Hz. Its phase is :math:`-2\\pi f\\,TE` (GE stores the conjugate), wrapped,
    in milliradians, with :math:`\\pi` in every second slice (a shift of k-space that GE leaves undone).
    """
    start(root, "head, GE")
    folder = real_data / "head-ge-b0map-invivo" / "Ref"
    magnitude = nib.load(folder / "GE_6_CV_Neuro_HH_Adv.nii")
    field = np.asanyarray(nib.load(folder / "GE_6_CV_Neuro_HH_Adv_fieldmaphz.nii").dataobj)
    metadata = json.loads((folder / "GE_6_CV_Neuro_HH_Adv.json").read_text())
    metadata = {key: metadata[key] for key in _KEPT if key in metadata}
    alternation = np.pi * (np.arange(field.shape[2]) % 2)
    for number, time in enumerate(echo_times, start=1):
        phase = np.angle(np.exp(1j * (alternation - 2 * np.pi * field * time)))
        for part, values in (("mag", magnitude.get_fdata()), ("phase", np.rint(1000 * phase))):
            path = root / "sub-ge" / "anat" / f"sub-ge_echo-{number}_part-{part}_MEGRE.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(values.astype(np.int16), magnitude.affine), path)
            _write_sidecar(path, {**metadata, "EchoTime": time}, part)
    return root


def phantom_philips(real_data: Path, root: Path) -> Path:
    """Phantom, dual echo; phase in radians through the slope."""
    start(root, "phantom, Philips")
    folder = real_data / "phantom-philips-dualecho" / "Ref"
    for number in (1, 2):
        for part, ending in {"mag": "", "phase": "_ph"}.items():
            _place(next(folder.glob(f"*_1301_*_e{number}{ending}.nii.gz")), root, part)
    return root


def _place(source: Path, root: Path, part: str, **entities: str) -> Path:
    """Copy an image with its sidecar; the echo number comes from its name (``_e1``)."""
    echo = "1" if "_e1" in source.name else "2"
    folder = root / "sub-real"
    stem = "sub-real"
    if "session" in entities:
        folder, stem = folder / f"ses-{entities['session']}", f"{stem}_ses-{entities['session']}"
    if "run" in entities:
        stem += f"_run-{entities['run']}"
    path = folder / "anat" / f"{stem}_echo-{echo}_part-{part}_MEGRE.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    metadata = json.loads(source.with_name(source.name.replace(".nii.gz", ".json")).read_text())
    _write_sidecar(path, {key: metadata[key] for key in _KEPT if key in metadata}, part)
    return path


def _write_sidecar(path: Path, metadata: Mapping[str, Any], part: str) -> None:
    units = {"Units": "arbitrary"} if part == "phase" else {}
    path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps({**metadata, **units}))


def _write_slope(path: Path, slope: float, intercept: float) -> None:
    """Set the scaling in the header of an uncompressed NIfTI without touching the numbers."""
    with path.open("r+b") as stream:
        stream.seek(112)
        stream.write(np.array([slope, intercept], dtype="<f4").tobytes())
