"""Run dcm2niix on chosen files and say which image came from which planes.

Classic files: the planes of one volume are laid out in a folder of their own, so that exactly one volume must come
back. Multi-frame files hold many volumes; what comes back is matched with the planes by their stored pixels, since
neither the names of the outputs nor their order is documented. If the pixels cannot be decoded here, echo time and
part decide. Where nothing matches, the planes of the volume are converted as classic files
(:mod:`qsmxt.convert.planes`); what cannot be decoded then either is an error.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.convert.planes import write_planes
from qsmxt.convert.volumes import Volume
from qsmxt.errors import InputError, MissingProgramError

_SUFFIX_OF_PART = {"phase": "_ph", "real": "_real", "imag": "_imaginary", "fieldmap": "_fieldmaphz"}


@dataclass
class Converted:
    """One volume as dcm2niix wrote it.

    Attributes
    ----------
    stored
        Numbers in the file (x, y, z); the scaled value is ``stored * slope + intercept``.
    header
        NIfTI header of the file.
    sidecar
        Content of its JSON.
    """

    stored: np.ndarray
    slope: float
    intercept: float
    header: Any
    sidecar: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def values(self) -> np.ndarray:
        """Scaled values, float32."""
        return self.stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


def find_program() -> Path:
    """The executable: that of the Python package, else the one on the path.

    Raises
    ------
    MissingProgramError
        If there is none.
    """
    try:
        import dcm2niix

        packaged = Path(dcm2niix.bin)
        if packaged.is_file() and os.access(packaged, os.X_OK):
            return packaged
    except (ImportError, AttributeError):
        pass
    found = shutil.which("dcm2niix")
    if found is None:
        raise MissingProgramError("dcm2niix: not installed; pip install dcm2niix")
    return Path(found)


class Converter:
    """Convert volumes below one scratch folder; multi-frame files are converted once for all their volumes."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.messages: list[str] = []
        self._program = find_program()
        self._count = 0
        self._multiframe: tuple[tuple[str, ...], list[Converted]] = ((), [])

    def convert(self, volume: Volume) -> Converted:
        """The image of ``volume``.

        Raises
        ------
        InputError
            If dcm2niix fails or gives another image than was asked for.
        """
        self.messages = []
        alone = sum(source.frames for source in _sources(volume)) == len(volume.frames)
        if any(source.multiframe for source in _sources(volume)) and not alone:
            try:
                found = self._match(volume)
            except InputError:
                planes = stored_planes(volume)
                if planes is None:
                    raise
                found = self._of_planes(volume, planes)
        else:
            found = self._only(volume, volume.paths)
        rows, columns, slices = volume.matrix
        if sorted(found.stored.shape) != sorted((rows, columns, slices)):
            raise InputError(
                f"dcm2niix: expected {columns} x {rows} x {slices} voxels, found {found.stored.shape}; "
                "slices are missing or unevenly spaced"
            )
        return found

    def _only(self, volume: Volume, paths: list[str]) -> Converted:
        """The one image that some files must give."""
        outputs = self._run(paths)
        if len(outputs) != 1:
            names = ", ".join(f"{o.name} {o.stored.shape}" for o in outputs) or "none"
            raise InputError(f"dcm2niix: expected one volume of {len(volume.frames)} slices, found {names}")
        return outputs[0]

    def _of_planes(self, volume: Volume, planes: np.ndarray) -> Converted:
        """The image of planes of a multi-frame file, written as classic files for the purpose."""
        folder = self.scratch / f"planes-{self._count:05d}"
        folder.mkdir()
        try:
            return self._only(volume, [str(path) for path in write_planes(volume, planes, folder)])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, paths: list[str]) -> list[Converted]:
        self._count += 1
        folder = self.scratch / f"series-{self._count:05d}"
        inputs, outputs = folder / "in", folder / "out"
        inputs.mkdir(parents=True)
        outputs.mkdir()
        for number, path in enumerate(paths):
            (inputs / f"{number:06d}.dcm").symlink_to(Path(path).resolve())
        command = [
            str(self._program), "-b", "y", "-ba", "o", "-z", "n", "-m", "y", "-g", "i", "-l", "o", "-p", "y", "-i", "n",
            "-w", "2", "-d", "0", "-f", "image", "-o", str(outputs), str(inputs),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=3600)
            text = f"{done.stdout}\n{done.stderr}"
            self.messages += [line.strip() for line in text.splitlines() if line.startswith(("Warning", "Error"))]
            if done.returncode != 0:
                raise InputError(f"dcm2niix: failed with code {done.returncode} ({_last_line(text)})")
            return [volume for path in sorted(outputs.glob("*.nii")) for volume in _load(path)]
        except subprocess.TimeoutExpired:
            raise InputError("dcm2niix: did not finish within an hour") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _match(self, volume: Volume) -> Converted:
        paths = tuple(volume.paths)
        if self._multiframe[0] != paths:
            self._multiframe = (paths, self._run(list(paths)))
        candidates = [c for c in self._multiframe[1] if sorted(c.stored.shape) == sorted(volume.matrix)]
        planes = stored_planes(volume)
        if planes is not None:
            matching = [c for c in candidates if _same_pixels(planes, c.stored)]
            if len(matching) == 1:
                return matching[0]
            candidates = matching or candidates
        fitting = [c for c in candidates if _fits(volume, c)]
        if len(fitting) == 1:
            return fitting[0]
        found = ", ".join(c.name for c in self._multiframe[1])
        raise InputError(
            f"dcm2niix: expected one image to be the {volume.first.component} at "
            f"{(volume.echo_time or 0) * 1e3:g} ms, found {len(fitting)} among {found}; export classic DICOM instead"
        )


def stored_planes(volume: Volume) -> np.ndarray | None:
    """Stored pixels (plane, row, column), or ``None`` if their compression cannot be decoded here."""
    import pydicom

    planes = np.empty((len(volume.frames), volume.source.rows, volume.source.columns), dtype=np.int32)
    opened: tuple[str, Any] = ("", None)
    for number, frame in enumerate(volume.frames):
        if opened[0] != frame.source.path:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    pixels = pydicom.dcmread(frame.source.path, force=True).pixel_array
            except Exception:  # no decoder for this compression, or damaged pixels: dcm2niix has the last word
                return None
            opened = (frame.source.path, pixels)
        planes[number] = opened[1][frame.index] if opened[1].ndim == 3 else opened[1]
    return planes


def _sources(volume: Volume) -> list[Any]:
    return list({frame.source.path: frame.source for frame in volume.frames}.values())


def _load(path: Path) -> list[Converted]:
    import nibabel

    image: Any = nibabel.load(path)
    sidecar_path = path.with_suffix(".json")
    sidecar = json.loads(sidecar_path.read_text(errors="replace")) if sidecar_path.exists() else {}
    stored = np.array(image.dataobj.get_unscaled())
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    while stored.ndim < 3:
        stored = stored[..., np.newaxis]
    volumes = stored.reshape(*stored.shape[:3], -1)
    return [
        Converted(volumes[..., i], slope, intercept, image.header.copy(), dict(sidecar), path.stem)
        for i in range(volumes.shape[-1])
    ]


def _same_pixels(planes: np.ndarray, stored: np.ndarray) -> bool:
    """Whether two arrays hold the same numbers, in whatever order the axes run.

    If dcm2niix had to rescale (the slope differs from slice to slice), the order of the numbers within a slice is
    compared through their correlation instead.
    """
    if stored.dtype.kind in "iu":
        mine, theirs = planes.ravel(), stored.astype(np.int32).ravel()
        if mine.min() == theirs.min() and mine.max() == theirs.max():
            low = int(mine.min())
            return bool(np.array_equal(np.bincount(mine - low), np.bincount(theirs - low)))
        return False
    if stored.shape[2] != len(planes):
        return False
    flipped = np.transpose(stored, (2, 1, 0))[:, ::-1]
    if flipped.shape != planes.shape:
        return False
    return any(_linear(planes, order) for order in (flipped, flipped[::-1]))


def _linear(planes: np.ndarray, others: np.ndarray) -> bool:
    for plane, other in zip(planes.reshape(len(planes), -1), others.reshape(len(others), -1), strict=True):
        a, b = plane - plane.mean(), other.astype(np.float64) - other.mean()
        norm = np.sqrt(float(a @ a) * float(b @ b))
        if norm > 0 and float(a @ b) / norm < 0.9999:
            return False
    return True


def _fits(volume: Volume, candidate: Converted) -> bool:
    time = candidate.sidecar.get("EchoTime")
    if volume.echo_time is not None and time is not None and abs(float(time) - volume.echo_time) > 2e-5:
        return False
    parts = {part for part, suffix in _SUFFIX_OF_PART.items() if suffix in candidate.name}
    if volume.first.component == "velocity":
        return "phase" in parts
    return volume.first.component in parts if parts else volume.first.component not in _SUFFIX_OF_PART


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
