r"""Write a map as DICOM slices that a picture archive accepts beside the images it was made from.

Every slice is an instance of classic MR Image Storage with signed 16-bit numbers (or all of them one instance of
Enhanced MR Image Storage); the map is

.. math:: v = \text{RescaleSlope} \cdot \text{stored},

with intercept 0, so that 0 (outside the mask) stays exactly 0, and a slope that uses the whole range: the error is at
most half a slope, :math:`\max|v| / 65534`. The slope is also written as Real World Value Mapping with its unit. Times
are milliseconds, as DICOM wants them. Numbers are of a size that the windows of a viewer can handle: a relaxation time
is written in ms, susceptibility and field in ppb.

Identifiers follow from the content and from the study, so the same map gives the same bytes. If a file of the source
study is given the series joins that study (patient, study, frame of reference); otherwise the patient is the subject
of the BIDS name. Planes are those of the image, turned so that they are seen in the radiological way.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import qsmxt
from qsmxt.bids.entities import SHORT_NAMES, parse_name
from qsmxt.convert.dataset import read_json
from qsmxt.convert.multiframe import multiframe as multiframe_instance
from qsmxt.errors import InputError, MissingInputError, OutputError

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
#: Largest stored number.
LARGEST = 32767


@dataclass(frozen=True)
class Kind:
    """How a quantity is presented.

    Attributes
    ----------
    description
        Series description.
    image_type
        Values 3 and 4 of Image Type.
    unit, meaning
        UCUM code and its name.
    number
        Series number.
    factor
        From the unit of the file to that of DICOM.
    window
        Centre and width in the unit of DICOM, or ``None`` to take it from the values.
    """

    description: str
    image_type: tuple[str, ...]
    unit: str = "1"
    meaning: str = "no units"
    number: int = 9000
    factor: float = 1.0
    window: tuple[float, float] | None = None


KINDS: dict[str, Kind] = {
    "chi": Kind("QSM (ppb)", ("OTHER", "QSM"), "[ppb]", "parts per billion", 9001, 1e3, (0.0, 400.0)),
    "paramagnetic": Kind("QSM para (ppb)", ("OTHER", "QSM"), "[ppb]", "parts per billion", 9002, 1e3, (50.0, 100.0)),
    "diamagnetic": Kind("QSM dia (ppb)", ("OTHER", "QSM"), "[ppb]", "parts per billion", 9003, 1e3, (-50.0, 100.0)),
    "swi": Kind("SWI", ("OTHER", "SWI"), number=9010),
    "minIP": Kind("SWI minIP", ("PROJECTION IMAGE", "MIN IP"), number=9011),
    "t2star": Kind("T2* (ms)", ("OTHER", "T2 STAR MAP"), "ms", "millisecond", 9020, 1e3, (40.0, 80.0)),
    "r2star": Kind("R2* (1/s)", ("OTHER", "R2 STAR MAP"), "/s", "per second", 9021, window=(30.0, 60.0)),
    "r2": Kind("R2 (1/s)", ("OTHER", "R2 MAP"), "/s", "per second", 9022, window=(15.0, 30.0)),
    "field": Kind("Field (ppb)", ("OTHER", "FIELD MAP"), "[ppb]", "parts per billion", 9030, 1e3, (0.0, 400.0)),
    "labels": Kind("Segmentation", ("OTHER", "SEGMENTATION"), number=9040),
    "magnitude": Kind("Magnitude", ("OTHER", "M"), number=9050),
    "map": Kind("Map", ("OTHER",), number=9060),
}
_BY_DESC = {
    "paramagnetic": "paramagnetic", "diamagnetic": "diamagnetic", "swi": "swi", "minIP": "minIP", "totalfield": "field",
    "localfield": "field", "combined": "magnitude",
}  # fmt: skip
_BY_SUFFIX = {
    "Chimap": "chi", "T2starmap": "t2star", "R2starmap": "r2star", "R2map": "r2", "dseg": "labels", "mask": "labels",
    "swi": "swi", "minIP": "minIP", "T2starw": "magnitude", "MEGRE": "magnitude",
}  # fmt: skip

#: Entries of the source that say who and which study it is.
_IDENTITY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientWeight",
    "PatientSize", "OtherPatientIDs", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription",
    "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID", "PositionReferenceIndicator",
)  # fmt: skip
#: Entries of the source that describe the scanner.
_SCANNER = (
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "StationName", "InstitutionName",
    "MagneticFieldStrength", "ImagingFrequency", "ImagedNucleus", "BodyPartExamined", "PatientPosition", "ProtocolName",
    "AcquisitionDate", "AcquisitionTime",
)  # fmt: skip


def export_dicom(
    nifti: str | Path,
    sidecar: Mapping[str, Any] | str | Path | None,
    out_dir: str | Path,
    source_dicom: str | Path | None = None,
    *,
    kind: str | None = None,
    description: str | None = None,
    series_number: int | None = None,
    multiframe: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write a 3-D NIfTI map as one DICOM series.

    Parameters
    ----------
    nifti
        The map. Its BIDS name tells the quantity and the subject.
    sidecar
        Acquisition in BIDS terms (EchoTime and RepetitionTime in s), as a mapping or a JSON file; ``None`` for the
        file beside the map, if there is one.
    out_dir
        New folder for the slices; it appears when all of them are written.
    source_dicom
        A file of the source study, or a folder of them; gives patient, study and frame of reference. Of several
        studies in a folder, the one that sidecar or labels name (:mod:`qsmxt.convert.source_study`).
    kind
        Key of :data:`KINDS`; default: from the name.
    description, series_number
        In place of those of the kind.
    multiframe
        Whether to write one enhanced multi-frame instance. Classic slices are the default because every archive and
        viewer takes them.
    overwrite
        Whether a folder that is there may be replaced.

    Returns
    -------
    Paths of the slices, in the order of the instance numbers; one path if multi-frame.

    Raises
    ------
    MissingInputError
        If a file does not exist.
    InputError
        If the map is not 3-D or not finite anywhere, or the source is not DICOM.
    ParameterError
        If the kind is unknown.
    OutputError
        If the folder exists, or cannot be written.
    """
    path, target = Path(nifti), Path(out_dir)
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: expected a folder, found a file")
    if target.exists() and any(target.iterdir()) and not overwrite:
        raise OutputError(f"{target}: is there already; choose another folder or allow to overwrite it")
    chosen = find_kind(path, kind)
    facts = _facts(path, sidecar)
    values, affine = _load(path)
    header = _header(path, facts, None if source_dicom is None else _source(Path(source_dicom), path, facts))
    header.SeriesDescription = (description or _title(path, chosen))[:64]
    header.SeriesNumber = series_number or chosen.number
    header.ImageType = ["DERIVED", "SECONDARY", *chosen.image_type]
    planes, plane_affine = radiological(values * chosen.factor, affine)
    stored, slope = quantise(planes)
    digest = hashlib.sha256(stored.tobytes() + plane_affine.tobytes() + slope.encode()).hexdigest()
    form = ["enhanced"] if multiframe else []
    header.SeriesInstanceUID = _uid("series", header.StudyInstanceUID, header.SeriesDescription, digest, *form)
    _describe_pixels(header, stored, slope, chosen)
    return _write(header, stored, plane_affine, target, multiframe)


def find_kind(path: Path, key: str | None = None) -> Kind:
    """The kind called ``key``, or the one that a BIDS name tells.

    Raises
    ------
    ParameterError
        If there is no such kind.
    """
    from qsmxt.errors import ParameterError

    if key is not None:
        if key not in KINDS:
            raise ParameterError(f"kind: expected one of {', '.join(KINDS)}, found {key!r}")
        return KINDS[key]
    entities, suffix, _ = parse_name(path.name)
    return KINDS[_BY_DESC.get(entities.get("description", ""), _BY_SUFFIX.get(suffix, "map"))]


def radiological(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The volume as planes (slice, row, column), columns towards the left or the back, rows towards back or feet.

    Returns the planes, and the affine (LPS, mm) from (column, row, slice) to the patient.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    directions = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
    nearest = [int(np.argmax(np.abs(directions[:, axis]))) for axis in range(3)]
    order = [0, 1, 2] if nearest[0] <= nearest[1] else [1, 0, 2]
    values, lps = np.transpose(values, order), lps[:, [*order, 3]]
    wanted = (1.0, 1.0, -1.0)  # left, back, feet
    for axis in (0, 1):
        main = nearest[order[axis]]
        if lps[main, axis] * wanted[main] < 0:
            values = np.flip(values, axis)
            lps[:, 3] += lps[:, axis] * (values.shape[axis] - 1)
            lps[:, axis] *= -1
    return np.ascontiguousarray(np.transpose(values, (2, 1, 0))), lps


def quantise(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Signed 16-bit numbers and the slope, as the text that is written.

    Whole numbers that fit are kept with slope 1. NaN and Inf become 0.
    """
    finite = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(np.abs(finite).max(initial=0.0))
    if largest <= LARGEST and np.array_equal(finite, np.rint(finite)):
        return finite.astype(np.int16), "1"
    text = f"{largest / LARGEST * (1 + 1e-9):.8e}"
    return np.clip(np.rint(finite / float(text)), -LARGEST, LARGEST).astype(np.int16), text


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from qsmxt.bids.images import choose_affine, open_image, volume_shape

    image = open_image(path)
    shape = volume_shape(path, image.shape)
    values = np.asarray(image.dataobj, dtype=np.float64).reshape(shape)
    if not np.isfinite(values).any():
        raise InputError(f"{path}: expected finite values, found none")
    return values, np.asarray(choose_affine(image.header)[0], dtype=np.float64)


def _facts(path: Path, sidecar: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    if isinstance(sidecar, Mapping):
        return dict(sidecar)
    if sidecar is None:
        beside = path.with_name(path.name.partition(".")[0] + ".json")
        return read_json(beside) if beside.exists() else {}
    if not Path(sidecar).exists():
        raise MissingInputError(f"sidecar: expected a JSON file, found nothing at {sidecar}")
    return read_json(Path(sidecar))


def _source(path: Path, image: Path, facts: Mapping[str, Any]) -> Any:
    import pydicom

    from qsmxt.convert.source_study import choose_study, find_studies

    entities, _, _ = parse_name(image.name)
    studies = find_studies(path)
    chosen = choose_study(studies, [facts], entities.get("subject", ""), entities.get("session"), alone=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(chosen.path, stop_before_pixels=True, force=True)


def _title(path: Path, kind: Kind) -> str:
    """Description of the series: the quantity, and what tells acquisitions of one study apart."""
    entities, _, _ = parse_name(path.name)
    labels = [
        f"{SHORT_NAMES.get(n, n)}-{entities[n]}" for n in ("acquisition", "reconstruction", "run") if n in entities
    ]
    return " ".join([kind.description, *labels])


def _header(path: Path, facts: Mapping[str, Any], source: Any) -> Any:
    """Everything that is the same in all slices, except the pixels."""
    from pydicom.dataset import Dataset

    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    entities, _, _ = parse_name(path.name)
    subject, session = entities.get("subject", path.name.partition(".")[0]), entities.get("session", "")
    date = session[:8] if session[:8].isdigit() and len(session) >= 8 else ""
    study = _uid("study", subject, session)
    for name, value in {
        "PatientName": f"sub-{subject}", "PatientID": f"sub-{subject}", "PatientBirthDate": "", "PatientSex": "",
        "StudyInstanceUID": study, "StudyDate": date, "StudyTime": "", "StudyID": session[:16], "AccessionNumber": "",
        "ReferringPhysicianName": "", "FrameOfReferenceUID": _uid("frame", study), "PositionReferenceIndicator": "",
        "Manufacturer": str(facts.get("Manufacturer", "")), "PatientPosition": str(facts.get("PatientPosition", "HFS")),
        "ManufacturerModelName": str(facts.get("ManufacturersModelName", "")), "BodyPartExamined": "BRAIN",
    }.items():  # fmt: skip
        setattr(header, name, value)
    if source is not None:
        for name in (*_IDENTITY, *_SCANNER):
            if name in source:
                value = source.data_element(name).value
                setattr(header, name, str(value) if name.endswith("Name") else value)
    _acquisition(header, facts, source)
    header.SOPClassUID, header.Modality = MR_IMAGE_STORAGE, "MR"
    header.SeriesDate, header.SeriesTime = header.StudyDate, header.StudyTime
    header.ContentDate, header.ContentTime = header.StudyDate, header.StudyTime
    header.SoftwareVersions = f"QSMxT {qsmxt.__version__}"[:64]
    header.DerivationDescription = "Computed from gradient-echo magnitude and phase by QSMxT"
    header.ContentQualification, header.BurnedInAnnotation, header.LossyImageCompression = "RESEARCH", "NO", "00"
    return header


def _acquisition(header: Any, facts: Mapping[str, Any], source: Any) -> None:
    """The MR image module, times in ms."""
    given = facts.get("EchoTime")
    times = list(given) if isinstance(given, (list, tuple)) else [given]
    header.EchoTrainLength = max(1, len(times))
    header.EchoTime = _ms(times[0]) if len(times) == 1 else ""
    header.RepetitionTime = _ms(facts.get("RepetitionTimeExcitation", facts.get("RepetitionTime")))
    header.ScanningSequence = _codes(facts.get("ScanningSequence"), ("SE", "IR", "GR", "EP", "RM"), "GR")
    header.SequenceVariant = _codes(
        facts.get("SequenceVariant"), ("SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"), "NONE"
    )
    header.ScanOptions = ""
    kind = str(facts.get("MRAcquisitionType", "3D"))
    header.MRAcquisitionType = kind if kind in ("2D", "3D") else "3D"
    if isinstance(facts.get("FlipAngle"), (int, float)):
        header.FlipAngle = _decimal(facts["FlipAngle"])
    if isinstance(facts.get("MagneticFieldStrength"), (int, float)):
        header.MagneticFieldStrength = _decimal(facts["MagneticFieldStrength"])
    if source is not None and header.RepetitionTime == "" and "RepetitionTime" in source:
        header.RepetitionTime = source.RepetitionTime


def _ms(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)) or not np.isfinite(seconds) or seconds <= 0:
        return ""
    return _decimal(float(seconds) * 1e3)


def _decimal(value: float) -> str:
    return f"{float(value):.10g}"[:16]


def _codes(text: Any, known: tuple[str, ...], default: str) -> list[str]:
    values = str(text or "").replace("_", "\\").replace("/", "\\").split("\\")
    return [value for value in values if value in known] or [default]


def _describe_pixels(header: Any, stored: np.ndarray, slope: str, kind: Kind) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = stored.shape[1:]
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.RescaleSlope, header.RescaleIntercept = slope, "0"
    header.RescaleType = "US" if kind.unit == "1" else kind.unit.strip("[]").upper().replace("/", "1/")[:16]
    centre, width = kind.window or _window(stored, float(slope))
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = _decimal(centre), _decimal(width), "LINEAR_EXACT"
    unit = Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = kind.unit, "UCUM", kind.meaning
    mapping = Dataset()
    mapping.LUTExplanation, mapping.LUTLabel = header.SeriesDescription[:64], kind.image_type[-1][:16]
    mapping.MeasurementUnitsCodeSequence = Sequence([unit])
    low, high = int(stored.min()), int(stored.max())
    mapping.add_new("RealWorldValueFirstValueMapped", "SS", low)
    mapping.add_new("RealWorldValueLastValueMapped", "SS", high)
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = float(slope), 0.0
    header.RealWorldValueMappingSequence = Sequence([mapping])


def _window(stored: np.ndarray, slope: float) -> tuple[float, float]:
    inside = stored[stored != 0]
    low, high = (float(v) * slope for v in (np.percentile(inside, (1, 99)) if inside.size else (0.0, 1.0)))
    return (low + high) / 2, max(high - low, slope, 1e-9)


def _write(header: Any, stored: np.ndarray, affine: np.ndarray, target: Path, enhanced: bool) -> list[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        partial.chmod(0o777 & ~_umask())
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    try:
        if enhanced:
            names = [_save(multiframe_instance(header, stored, affine, _uid, _fixed), partial / "00001.dcm")]
        else:
            slices = (_slice(header, stored, affine, index) for index in range(len(stored)))
            names = [_save(one, partial / f"{one.InstanceNumber:05d}.dcm") for one in slices]
        if not _same_files(partial, target):
            _swap(partial, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [target / name for name in names]


def _swap(partial: Path, target: Path) -> None:
    """Put a finished folder in its place."""
    if not target.exists():
        partial.replace(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    target.replace(old / "replaced")
    partial.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def _same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files, byte for byte."""
    if not other.is_dir():
        return False
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        return False
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def _slice(header: Any, stored: np.ndarray, affine: np.ndarray, index: int) -> Any:
    """One classic instance, without its file meta information."""
    from pydicom.dataset import Dataset

    dataset = Dataset()
    dataset.update(header)
    dataset.SOPInstanceUID = _uid("instance", header.SeriesInstanceUID, str(index))
    dataset.InstanceNumber, dataset.AcquisitionNumber = index + 1, 1
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    columns, rows = affine[:3, 0] / sizes[0], affine[:3, 1] / sizes[1]
    position = affine[:3, 3] + index * affine[:3, 2]
    normal = np.cross(columns, rows)
    dataset.ImageOrientationPatient = [_fixed(v) for v in (*columns, *rows)]
    dataset.ImagePositionPatient = [_fixed(v) for v in position]
    dataset.SliceLocation = _fixed(float(position @ normal))
    dataset.PixelSpacing = [_fixed(sizes[1]), _fixed(sizes[0])]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = _fixed(sizes[2])
    dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = int(stored[index].min()), int(stored[index].max())
    dataset.PixelData = stored[index].astype("<i2").tobytes()
    return dataset


def _save(dataset: Any, path: Path) -> str:
    """Write an instance as a file; returns the name."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, UID(_uid("implementation"))
    meta.ImplementationVersionName = "QSMXT"
    FileDataset("", dataset, file_meta=meta, preamble=b"\0" * 128).save_as(path, enforce_file_format=True)
    return path.name


def _fixed(value: float) -> str:
    """Decimal string of at most 16 characters without an exponent."""
    text = f"{float(value):.10f}"[:16].rstrip("0").rstrip(".")
    return text if text not in ("-0", "") else "0"


def _uid(*parts: str) -> str:
    """Identifier that follows from its parts (root 2.25, a UUID as an integer)."""
    digest = hashlib.sha256(json.dumps(["qsmxt", *map(str, parts)]).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
