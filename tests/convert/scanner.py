"""Scanners made of Python: write simulated images as the DICOM files of three makers.

An image volume has the axes (x, y, z) of its affine (voxel to RAS, mm). Columns of the DICOM planes run along x, rows
along minus y, planes along z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"
_ROOT = "1.2.826.0.1.3680043.10.999"


@dataclass
class Exam:
    """Who was scanned, when, and on which grid."""

    affine: np.ndarray
    patient_id: str = "P-007"
    patient_name: str = "Bond^James"
    study_date: str = "20240315"
    study_time: str = "101500"
    study: int = 1
    protocol: str = "GRE_QSM"
    field_strength: float = 3.0
    repetition_time: float = 0.04
    extra: dict[str, Any] = field(default_factory=dict)

    def uid(self, *numbers: int) -> str:
        return ".".join([_ROOT, str(self.study), *map(str, numbers)])

    def orientation(self) -> list[float]:
        lps = np.diag([-1.0, -1.0, 1.0]) @ self.affine[:3, :3]
        x, y = lps[:, 0] / np.linalg.norm(lps[:, 0]), -lps[:, 1] / np.linalg.norm(lps[:, 1])
        return [round(float(v), 12) for v in (*x, *y)]

    def position(self, rows: int, plane: int) -> list[float]:
        ras = self.affine @ np.array([0.0, rows - 1.0, plane, 1.0])
        return [round(float(v), 9) for v in np.diag([-1.0, -1.0, 1.0]) @ ras[:3]]

    def sizes(self) -> tuple[float, float, float]:
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def plane_of(volume: np.ndarray, index: int) -> np.ndarray:
    """Rows and columns of one plane."""
    return np.ascontiguousarray(volume[:, ::-1, index].T)


def base(exam: Exam, series: int, instance: int, manufacturer: str, sop_class: str = MR_IMAGE) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = exam.uid(series, instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = f"{_ROOT}.1"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.Manufacturer = "MR", manufacturer
    dataset.PatientID, dataset.PatientName = exam.patient_id, exam.patient_name
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19700101", "M", "054Y"
    dataset.StudyInstanceUID, dataset.StudyID = exam.uid(), "1"
    dataset.SeriesInstanceUID, dataset.SeriesNumber = exam.uid(series), series
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = exam.study_date
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = exam.study_time
    dataset.AcquisitionTime = f"{int(exam.study_time) + 100:06d}.000000"
    dataset.FrameOfReferenceUID = exam.uid(9999)
    dataset.ProtocolName = dataset.SeriesDescription = exam.protocol
    dataset.InstitutionName = "Universal Exports"
    dataset.InstanceNumber, dataset.AcquisitionNumber = instance, 1
    dataset.MagneticFieldStrength, dataset.FlipAngle = exam.field_strength, 15
    dataset.RepetitionTime = exam.repetition_time * 1e3
    dataset.MRAcquisitionType, dataset.ScanningSequence, dataset.SequenceVariant = "3D", "GR", "SP"
    dataset.SliceThickness = exam.sizes()[2]
    dataset.PatientPosition = "HFS"
    for name, value in exam.extra.items():
        setattr(dataset, name, value)
    return dataset


def set_pixels(dataset: Dataset, plane: np.ndarray) -> None:
    signed = plane.dtype.kind == "i"
    dataset.Rows, dataset.Columns = plane.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16 if signed else 12, 15 if signed else 11
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = plane.astype("<i2" if signed else "<u2").tobytes()


def write_classic(
    folder: Path,
    exam: Exam,
    volumes: Sequence[np.ndarray],
    echo_times: Sequence[float],
    *,
    series: int,
    manufacturer: str,
    image_type: Sequence[str],
    slope: float | None = None,
    intercept: float | None = None,
    private: dict[tuple[int, int], tuple[str, str, Any]] | None = None,
    first_instance: int = 1,
) -> list[Path]:
    """One series of classic files: a volume for every echo, planes in the order of z."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    instance = first_instance
    for echo, (volume, time) in enumerate(zip(volumes, echo_times, strict=True), start=1):
        for index in range(volume.shape[2]):
            dataset = base(exam, series, instance, manufacturer)
            dataset.ImageType = list(image_type)
            dataset.EchoTime, dataset.EchoNumbers, dataset.EchoTrainLength = time * 1e3, echo, len(echo_times)
            dataset.ImageOrientationPatient = exam.orientation()
            dataset.ImagePositionPatient = exam.position(volume.shape[1], index)
            x, y, z = exam.sizes()
            dataset.PixelSpacing, dataset.SpacingBetweenSlices = [y, x], z
            set_pixels(dataset, plane_of(volume, index))
            if slope is not None:
                dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope, intercept, "US"
            for (group, element), (creator, vr, value) in (private or {}).items():
                dataset.private_block(group, creator, create=True).add_new(element, vr, value)
            path = folder / f"IM{series:04d}{instance:05d}"
            dataset.save_as(path, enforce_file_format=True)
            written.append(path)
            instance += 1
    return written


def siemens_phase(phase: np.ndarray) -> np.ndarray:
    """12 bits, 0..4095, of which 4096 steps are a circle."""
    return (np.rint((phase + np.pi) / (2 * np.pi) * 4096).astype(np.int64) % 4096).astype(np.uint16)


def scaled_magnitude(magnitude: np.ndarray) -> tuple[np.ndarray, float]:
    """12 bits, and what one step is worth."""
    step = float(magnitude.max()) / 4000
    return np.rint(magnitude / step).astype(np.uint16), step


def write_siemens(
    folder: Path, exam: Exam, magnitude: np.ndarray, phase: np.ndarray, echo_times: Sequence[float], *, series: int = 2
) -> float:
    """Two series, magnitude and phase; returns the step of the magnitude."""
    stored, step = scaled_magnitude(magnitude)
    common: dict[str, Any] = {"manufacturer": "SIEMENS"}
    coil = {(0x0051, 0x0F): ("SIEMENS MR HEADER", "LO", "HEA;HEP")}
    write_classic(folder / "mag", exam, stored, echo_times, series=series,
                  image_type=["ORIGINAL", "PRIMARY", "M", "ND", "NORM"], private=coil, **common)  # fmt: skip
    write_classic(folder / "phase", exam, siemens_phase(phase), echo_times, series=series + 1, slope=2, intercept=-4096,
                  image_type=["ORIGINAL", "PRIMARY", "P", "ND"], private=coil, **common)  # fmt: skip
    return step


def write_plain(
    folder: Path, exam: Exam, magnitude: np.ndarray, phase: np.ndarray, echo_times: Sequence[float], *,
    manufacturer: str, types: tuple[str, str], series: int = 7,
) -> float:  # fmt: skip
    """Magnitude and phase of a maker that uses public tags alone, as United Imaging and Canon do; phase 0 to 4095."""
    stored, step = scaled_magnitude(magnitude)
    for number, (kind, volumes) in enumerate(((types[0], stored), (types[1], siemens_phase(phase)))):
        write_classic(folder / kind, exam, volumes, echo_times, series=series + number, manufacturer=manufacturer,
                      image_type=["ORIGINAL", "PRIMARY", kind])  # fmt: skip
    return step


def write_ge(folder: Path, exam: Exam, signal: np.ndarray, echo_times: Sequence[float], *, series: int = 3) -> float:
    """Real and imaginary part in one series, as GE stores them; returns the step."""
    step = float(np.abs(signal).max()) / 16000
    instance = 1
    for code, part in ((2, signal.real), (3, signal.imag)):
        stored = np.rint(part / step).astype(np.int16)
        private = {(0x0043, 0x2F): ("GEMS_PARM_01", "SS", code)}
        write_classic(
            folder, exam, stored, echo_times, series=series, manufacturer="GE MEDICAL SYSTEMS",
            image_type=["ORIGINAL", "PRIMARY", "OTHER"], private=private, first_instance=instance,
        )  # fmt: skip
        instance += stored.shape[0] * stored.shape[3]
    return step


def write_philips_enhanced(
    path: Path,
    exam: Exam,
    magnitude: np.ndarray,
    phase: np.ndarray,
    echo_times: Sequence[float],
    *,
    series: int = 401,
    seed: int | None = None,
) -> float:
    """Magnitude and phase of all echoes in one multi-frame file, the planes in order or at random.

    Returns the step of the magnitude.
    """
    stored, step = scaled_magnitude(magnitude)
    kinds = [("MAGNITUDE", stored, step, 0.0), ("PHASE", siemens_phase(phase), 2 * np.pi / 4096, -np.pi)]
    maker = {"manufacturer": "Philips Medical Systems", "sequence": "FFE", "flavour": ("T1", "NONE")}
    _write_enhanced(path, exam, kinds, echo_times, series=series, seed=seed, **maker)
    return step


def write_siemens_xa(
    folder: Path, exam: Exam, magnitude: np.ndarray, phase: np.ndarray, echo_times: Sequence[float], *, series: int = 5
) -> float:
    """Magnitude and phase as two multi-frame files of all echoes, as software of the X series exports them."""
    stored, step = scaled_magnitude(magnitude)
    for number, (letter, kind) in enumerate(
        (("M", ("MAGNITUDE", stored, 1.0, 0.0)), ("P", ("PHASE", siemens_phase(phase), 2.0, -4096.0)))
    ):
        maker = {"manufacturer": "Siemens Healthineers", "sequence": "*fl3d3", "flavour": (letter, "NONE")}
        _write_enhanced(folder / f"{letter}.dcm", exam, [kind], echo_times, series=series + number, **maker)
    return step


def _write_enhanced(
    path: Path,
    exam: Exam,
    kinds: Sequence[tuple[str, np.ndarray, float, float]],
    echo_times: Sequence[float],
    *,
    series: int,
    manufacturer: str,
    sequence: str,
    flavour: tuple[str, str],
    seed: int | None = None,
) -> None:
    """One multi-frame file; a kind is the component, its numbers (echo, x, y, z), slope and intercept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = base(exam, series, 1, manufacturer, ENHANCED_MR_IMAGE)
    for name in ("RepetitionTime", "FlipAngle", "SliceThickness", "ScanningSequence", "SequenceVariant"):
        delattr(dataset, name)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", *flavour]
    dataset.EchoPulseSequence, dataset.EchoPlanarPulseSequence = "GRADIENT", "NO"
    dataset.PulseSequenceName = sequence
    dataset.ComplexImageComponent = "MIXED" if len(kinds) > 1 else kinds[0][0]
    dataset.SharedFunctionalGroupsSequence = DicomSequence([_shared(exam)])
    frames, pixels = [], []
    for part, (kind, volumes, slope, intercept) in enumerate(kinds, start=1):
        for echo, volume in enumerate(volumes):
            for index in range(volume.shape[2]):
                numbers = [1, index + 1, echo + 1, part]
                time = echo_times[echo]
                frames.append(_frame(exam, volume, index, time, kind, slope, intercept, numbers, flavour))
                pixels.append(plane_of(volume, index))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(len(frames))
        frames, pixels = [frames[i] for i in order], [pixels[i] for i in order]
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    dataset.NumberOfFrames = len(frames)
    dataset.DimensionIndexSequence = DicomSequence(
        [_index(0x00209056, 0x00209111), _index(0x00209057, 0x00209111), _index(0x00189082, 0x00189114),
         _index(0x00089208, 0x00189226)]
    )  # fmt: skip
    set_pixels(dataset, np.stack(pixels))
    dataset.save_as(path, enforce_file_format=True)


def _index(pointer: int, group: int) -> Dataset:
    item = Dataset()
    item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, group
    item.DimensionOrganizationUID = f"{_ROOT}.5"
    return item


def _item(**values: Any) -> DicomSequence:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return DicomSequence([item])


def _shared(exam: Exam) -> Dataset:
    shared = Dataset()
    shared.MRTimingAndRelatedParametersSequence = _item(
        RepetitionTime=exam.repetition_time * 1e3, FlipAngle=15, EchoTrainLength=1
    )
    x, y, z = exam.sizes()
    shared.PixelMeasuresSequence = _item(PixelSpacing=[y, x], SliceThickness=z, SpacingBetweenSlices=z)
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=exam.orientation())
    return shared


def _frame(exam: Exam, volume: np.ndarray, index: int, time: float, kind: str, slope: float, intercept: float,
           numbers: list[int], flavour: tuple[str, str]) -> Dataset:  # fmt: skip
    frame = Dataset()
    frame.MREchoSequence = _item(EffectiveEchoTime=time * 1e3)
    frame.MRImageFrameTypeSequence = _item(
        FrameType=["ORIGINAL", "PRIMARY", *flavour], ComplexImageComponent=kind, PixelPresentation="MONOCHROME"
    )
    frame.FrameContentSequence = _item(
        StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=numbers, TemporalPositionIndex=1
    )
    frame.PlanePositionSequence = _item(ImagePositionPatient=exam.position(volume.shape[1], index))
    frame.PixelValueTransformationSequence = _item(
        RescaleSlope=f"{slope:.14g}"[:16], RescaleIntercept=f"{intercept:.12g}"[:16], RescaleType="US"
    )
    return frame


def read(path: Path) -> FileDataset:
    """A file, with its pixels."""
    return pydicom.dcmread(path)
