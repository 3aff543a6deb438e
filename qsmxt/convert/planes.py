"""Planes of a multi-frame file as classic files, one volume at a time.

dcm2niix stacks what it cannot tell apart (several echoes in one enhanced file of some makers). As the planes of every
volume are known here, they are then written as the classic files that the scanner could have exported instead:
attributes of the functional groups move to where classic images have them, the stored numbers are the same.
"""

from __future__ import annotations

import hashlib
import warnings
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.convert.headers import Frame
from qsmxt.convert.volumes import Volume

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
#: Functional groups and the attributes of them that a classic image has too.
_MOVED = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "MRTimingAndRelatedParametersSequence": ("RepetitionTime", "FlipAngle", "EchoTrainLength"),
    "MRAveragesSequence": ("NumberOfAverages",),
    "MRImagingModifierSequence": ("PixelBandwidth",),
}  # fmt: skip
#: What only multi-frame files have, and pixels.
_DROPPED = frozenset(
    {
        "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames",
        "DimensionIndexSequence", "DimensionOrganizationSequence", "PixelData", "FloatPixelData",
        "DoubleFloatPixelData", "ComplexImageComponent", "EchoPulseSequence", "EchoPlanarPulseSequence",
    }
)  # fmt: skip
_LETTERS = {"mag": "M", "phase": "P", "real": "R", "imag": "I"}


def write_planes(volume: Volume, planes: np.ndarray, folder: Path) -> list[Path]:
    """Write the planes of ``volume`` as classic files.

    Parameters
    ----------
    volume
        Planes of multi-frame files.
    planes
        Their stored numbers (plane, row, column).
    folder
        Where the files go.

    Returns
    -------
    The files, in the order of the planes.
    """
    import pydicom

    opened: dict[str, Any] = {}
    written = []
    for number, (frame, plane) in enumerate(zip(volume.frames, planes, strict=True), start=1):
        path = frame.source.path
        if path not in opened:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opened[path] = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        written.append(_write(_classic(opened[path], frame, plane, number), folder / f"{number:06d}.dcm"))
    return written


def _classic(whole: Any, frame: Frame, plane: np.ndarray, number: int) -> Any:
    from pydicom.dataset import Dataset

    dataset = Dataset()
    dataset.update({e.tag: copy(e) for e in whole if e.keyword not in _DROPPED and not e.tag.is_private})
    dataset.SOPClassUID, dataset.SOPInstanceUID = MR_IMAGE_STORAGE, _uid(frame)
    shared = whole.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for groups in (shared[0], whole.PerFrameFunctionalGroupsSequence[frame.index]):
        for name, keywords in _MOVED.items():
            for item in groups.get(name) or ():
                dataset.update({e.tag: copy(e) for e in item if e.keyword in keywords})
    dataset.InstanceNumber, dataset.AcquisitionNumber = number, 1
    kinds = [value for value in frame.image_type if value] or ["ORIGINAL", "PRIMARY"]
    letter = _LETTERS.get(frame.component)
    dataset.ImageType = kinds if letter is None or letter in kinds else [*kinds, letter]
    for name, seconds in (("EchoTime", frame.echo_time), ("InversionTime", frame.inversion_time)):
        if seconds is not None:
            setattr(dataset, name, f"{seconds * 1e3:.10g}")
    dataset.ScanningSequence = list(frame.source.scanning_sequence) or "GR"
    dataset.SequenceVariant = "NONE"
    bits = 16 if dataset.BitsAllocated <= 16 else 32
    kind = "i" if dataset.PixelRepresentation else "u"
    if bits != dataset.BitsAllocated:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelData = plane.astype(f"<{kind}{bits // 8}").tobytes()
    return dataset


def _uid(frame: Frame) -> str:
    """Identifier of a plane that follows from its file and its number."""
    digest = hashlib.sha256(f"{frame.source.sop_uid} {frame.source.path} {frame.index}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _write(dataset: Any, path: Path) -> Path:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    FileDataset("", dataset, file_meta=meta, preamble=b"\0" * 128).save_as(path, enforce_file_format=True)
    return path
