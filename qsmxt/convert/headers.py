"""What is read from the header of one DICOM file: one :class:`Frame` for every image plane it holds.

Classic files hold one plane, enhanced multi-frame files many; both become the same thing here, so that nothing
after this module knows the difference. Times are in seconds, lengths in millimetres.

The component of a complex image is taken from tags, in this order: Complex Image Component (0008,9208), the GE
private image type (0043,102F: 0 magnitude, 1 phase, 2 real, 3 imaginary), then whole values of Image Type (0008,0008)
from the third on. Values are compared as a whole: ``PRIMARY`` is not a phase image because it holds a ``P``.
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from qsmxt.errors import InputError

#: Patterns in values of Image Type, in the order in which they are tried.
_COMPONENT_VALUES: tuple[tuple[str, frozenset[str]], ...] = (
    ("velocity", frozenset({"VELOCITY", "VELOCITY MAP", "PCA", "PHASE CONTRAST"})),
    ("fieldmap", frozenset({"B0", "B0 MAP", "B0MAP", "B0_MAP", "FIELD MAP", "FIELD_MAP", "FIELDMAP"})),
    ("phase", frozenset({"P", "PHASE", "PHASE MAP", "P_FFE", "P_SE", "P_IR", "P_TSE", "PH"})),
    ("real", frozenset({"R", "REAL", "R_FFE", "R_SE", "R_IR", "R_TSE"})),
    ("imag", frozenset({"I", "IMAG", "IMAGINARY", "I_FFE", "I_SE", "I_IR", "I_TSE"})),
    ("mag", frozenset({"M", "MAG", "MAGNITUDE", "M_FFE", "M_SE", "M_IR", "M_TSE"})),
)
_ENHANCED_COMPONENTS = {"MAGNITUDE": "mag", "PHASE": "phase", "REAL": "real", "IMAGINARY": "imag"}
_GE_COMPONENTS = {0: "mag", 1: "phase", 2: "real", 3: "imag"}

GE_IMAGE_TYPE = 0x0043102F
GE_COLLAPSE = 0x00431030
GE_SEQUENCE = 0x0019109E
GE_LOCATIONS = 0x0021104F
SIEMENS_COIL = 0x0051100F
SIEMENS_COIL_XA = 0x0021114F
PHILIPS_COMPONENT = 0x20051011
PHILIPS_SLICES = 0x20011018

_TEXT_TAGS = {
    "sop_uid": "SOPInstanceUID", "sop_class": "SOPClassUID", "modality": "Modality",
    "patient_id": "PatientID", "patient_name": "PatientName", "patient_sex": "PatientSex", "patient_age": "PatientAge",
    "study_uid": "StudyInstanceUID", "study_id": "StudyID", "study_description": "StudyDescription",
    "accession_number": "AccessionNumber", "study_date": "StudyDate", "study_time": "StudyTime",
    "series_uid": "SeriesInstanceUID", "series_description": "SeriesDescription", "protocol": "ProtocolName",
    "sequence_name": "SequenceName", "manufacturer": "Manufacturer", "model": "ManufacturerModelName",
    "acquisition_date": "AcquisitionDate", "acquisition_time": "AcquisitionTime",
    "series_time": "SeriesTime", "content_time": "ContentTime", "acquisition_type": "MRAcquisitionType",
}  # fmt: skip
_OTHER_TAGS = (
    "SpecificCharacterSet", "ImageType", "SeriesDate", "SeriesNumber", "AcquisitionNumber", "InstanceNumber",
    "AcquisitionDateTime", "PulseSequenceName", "ScanningSequence", "SequenceVariant", "ScanOptions", "EchoTime",
    "InversionTime", "RepetitionTime", "FlipAngle", "MagneticFieldStrength", "TemporalPositionIdentifier",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames",
    "ComplexImageComponent", "EchoPulseSequence", "EchoPlanarPulseSequence", "ReceiveCoilName",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "InversionRecovery", "RescaleType",
)  # fmt: skip
_PRIVATE_TAGS = (
    GE_IMAGE_TYPE, GE_COLLAPSE, GE_SEQUENCE, GE_LOCATIONS, SIEMENS_COIL, SIEMENS_COIL_XA, PHILIPS_COMPONENT,
    PHILIPS_SLICES,
)  # fmt: skip
_NUMBER_OF_FRAMES = 0x00280008
#: Nothing that a classic file needs lies beyond this tag; vendors keep their largest sequences there.
_LAST_CLASSIC_TAG = 0x20051012
#: Files up to this size (bytes) are read at once.
SMALL_FILE = 1 << 19
#: MR images: classic, enhanced, enhanced colour, and classic ones converted to enhanced.
_MR_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.4{tail}" for tail in ("", ".1", ".3", ".4"))
#: Transfer syntax of deflated files: nothing limits what such a file inflates to.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PIXEL_DATA = frozenset({0x7FE00010, 0x7FE00009, 0x7FE00008})


@dataclass(slots=True)
class Source:
    """One DICOM file: what belongs to all of its planes."""

    path: str
    sop_uid: str = ""
    sop_class: str = ""
    modality: str = ""
    patient_id: str = ""
    patient_name: str = ""
    patient_sex: str = ""
    patient_age: str = ""
    study_uid: str = ""
    study_id: str = ""
    study_description: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_time: str = ""
    series_uid: str = ""
    series_description: str = ""
    protocol: str = ""
    sequence_name: str = ""
    manufacturer: str = ""
    model: str = ""
    acquisition_date: str = ""
    acquisition_time: str = ""
    series_time: str = ""
    content_time: str = ""
    acquisition_type: str = ""
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    series_number: int = 0
    acquisition_number: int = 0
    instance_number: int = 0
    rows: int = 0
    columns: int = 0
    frames: int = 1
    expected_slices: int = 0
    field_strength: float | None = None
    repetition_time: float | None = None
    flip_angle: float | None = None
    multiframe: bool = False
    inverts: bool = False

    @property
    def vendor(self) -> str:
        """``ge``, ``siemens``, ``philips``, ``uih``, ``canon`` or ``other``."""
        text = self.manufacturer.upper()
        for key, marks in (
            ("ge", ("GE MEDICAL", "GE HEALTH", "GEHC")),
            ("siemens", ("SIEMENS",)),
            ("philips", ("PHILIPS",)),
            ("uih", ("UIH", "UNITED IMAGING")),
            ("canon", ("CANON", "TOSHIBA")),
        ):
            if any(mark in text for mark in marks):
                return key
        return "ge" if text == "GE" else "other"


@dataclass(slots=True)
class Frame:
    """One image plane.

    Attributes
    ----------
    source, index
        The file and the number of the plane in it (0 in a classic file).
    component
        ``mag``, ``phase``, ``real``, ``imag``, ``fieldmap`` (Hz), ``velocity`` or ``""`` if the tags do not say.
    echo_time, inversion_time
        s; ``None`` if the header has none.
    coil
        Name of the receive element(s) as the scanner wrote it.
    position, orientation
        Centre of the first voxel and the six direction cosines, patient coordinates (LPS), mm.
    """

    source: Source
    index: int = 0
    image_type: tuple[str, ...] = ()
    component: str = ""
    echo_time: float | None = None
    inversion_time: float | None = None
    coil: str = ""
    temporal: int = 0
    position: tuple[float, float, float] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] = field(default_factory=tuple)

    @property
    def location(self) -> float | None:
        """Distance of the plane from the origin along its normal, mm."""
        if self.position is None or self.orientation is None:
            return None
        rx, ry, rz, cx, cy, cz = self.orientation
        normal = (ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx)
        return sum(p * n for p, n in zip(self.position, normal, strict=True))


def looks_like_dicom(start: bytes) -> bool:
    """Whether the first bytes of a file are those of DICOM, with or without its preamble."""
    if start[128:132] == b"DICM":
        return True
    return start[:4] in (b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x02\x00\x00\x00")


def read_frames(path: str | Path) -> list[Frame]:
    """The planes of one file, without its pixels.

    Returns an empty list for a file that is not DICOM, is a DICOMDIR, or holds no MR image.

    Raises
    ------
    InputError
        If the file begins like DICOM but cannot be read.
    """
    with Path(path).open("rb") as stream:
        start = stream.read(1024)
        if not looks_like_dicom(start):
            return []
        if _DEFLATED in start:
            raise InputError(
                f"{path}: expected DICOM that is not deflated, found a deflated file; export it uncompressed"
            )
        stream.seek(0)
        size = os.fstat(stream.fileno()).st_size
        # seeking in memory is several times faster than in a file
        source: BinaryIO = io.BytesIO(stream.read()) if size <= SMALL_FILE else stream
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = _read(source)
                if _is_directory(dataset):
                    return []
                return _frames(dataset, str(path))
        except InputError:
            raise
        except Exception as error:  # a damaged header can raise anything
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: expected a DICOM file, found one that cannot be read ({text})") from error


@cache
def _wanted() -> list[Any]:
    from pydicom.tag import Tag

    return [*(Tag(name) for name in (*_TEXT_TAGS.values(), *_OTHER_TAGS)), *(Tag(tag) for tag in _PRIVATE_TAGS)]


def _read(stream: BinaryIO) -> Any:
    from pydicom.filereader import read_partial

    enhanced = False

    def stop(tag: int, vr: str | None, length: int) -> bool:
        nonlocal enhanced
        number = int(tag)  # comparing plain integers is many times faster
        if number < _NUMBER_OF_FRAMES:
            return False
        if number == _NUMBER_OF_FRAMES:
            enhanced = True
        return number in _PIXEL_DATA or (number > _LAST_CLASSIC_TAG and not enhanced)

    return read_partial(stream, stop_when=stop, force=True, specific_tags=_wanted())


def _is_directory(dataset: Any) -> bool:
    return str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) == "1.2.840.10008.1.3.10"


def _frames(dataset: Any, path: str) -> list[Frame]:
    source = _source(dataset, path)
    announced = str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) in _MR_CLASSES
    if announced and not (source.rows and source.columns):
        raise InputError(f"{path}: expected an MR image, found a header that ends early; copy the file again")
    if source.modality not in ("MR", "") or not source.rows or not source.columns:
        return []
    if not source.series_uid:
        raise InputError(f"{path}: expected a Series Instance UID, found none")
    if "PerFrameFunctionalGroupsSequence" in dataset:
        source.multiframe = True
        return list(_enhanced(dataset, source))
    return [_classic(dataset, source)]


def _source(dataset: Any, path: str) -> Source:
    source = Source(path)
    for name, keyword in _TEXT_TAGS.items():
        setattr(source, name, _plain(dataset, keyword))
    source.study_date = source.study_date or source.acquisition_date or _plain(dataset, "SeriesDate")
    moment = _plain(dataset, "AcquisitionDateTime")
    if moment and not source.acquisition_time:
        source.acquisition_date, source.acquisition_time = moment[:8], moment[8:].split("+")[0].split("-")[0]
    source.sequence_name = source.sequence_name or _plain(dataset, "PulseSequenceName")
    if not source.sequence_name:
        source.sequence_name = _text(_private(dataset, GE_SEQUENCE)) if source.vendor == "ge" else ""
    source.scanning_sequence = _values(_plain(dataset, "ScanningSequence")) or _enhanced_sequence(dataset)
    source.sequence_variant = _values(_plain(dataset, "SequenceVariant"))
    source.inverts = "IR" in source.scanning_sequence or _plain(dataset, "InversionRecovery").upper() == "YES"
    for name, keyword in (
        ("series_number", "SeriesNumber"),
        ("acquisition_number", "AcquisitionNumber"),
        ("instance_number", "InstanceNumber"),
        ("frames", "NumberOfFrames"),
    ):
        setattr(source, name, _integer(_plain(dataset, keyword)))
    source.frames = max(1, source.frames)
    source.rows, source.columns = _integer(dataset.get("Rows")), _integer(dataset.get("Columns"))
    source.field_strength = _number(_plain(dataset, "MagneticFieldStrength"))
    source.repetition_time = _seconds(_plain(dataset, "RepetitionTime"))
    source.flip_angle = _number(_plain(dataset, "FlipAngle"))
    if source.vendor == "ge":
        source.expected_slices = _integer(_private(dataset, GE_LOCATIONS))
    elif source.vendor == "philips":
        source.expected_slices = _integer(_private(dataset, PHILIPS_SLICES))
    return source


def _enhanced_sequence(dataset: Any) -> tuple[str, ...]:
    kind = {"GRADIENT": ("GR",), "SPIN": ("SE",), "BOTH": ("GR", "SE")}
    found = kind.get(_text(dataset.get("EchoPulseSequence")).upper(), ())
    if _text(dataset.get("EchoPlanarPulseSequence")).upper() == "YES":
        found = (*found, "EP")
    return found


def _classic(dataset: Any, source: Source) -> Frame:
    image_type = _values(_plain(dataset, "ImageType"))
    return Frame(
        source,
        image_type=image_type,
        component=_component(dataset, source, image_type, ""),
        echo_time=_seconds(_plain(dataset, "EchoTime")),
        inversion_time=_seconds(_plain(dataset, "InversionTime")),
        coil=_coil(dataset),
        temporal=_integer(_plain(dataset, "TemporalPositionIdentifier")),
        position=_position(_plain(dataset, "ImagePositionPatient")),
        orientation=_orientation(_plain(dataset, "ImageOrientationPatient")),
        spacing=_floats(_plain(dataset, "PixelSpacing")),
    )


def _enhanced(dataset: Any, source: Source) -> Iterator[Frame]:
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    groups = dataset.PerFrameFunctionalGroupsSequence
    source.frames = len(groups)
    timing = _group("MRTimingAndRelatedParametersSequence", groups[0] if groups else None, shared)
    source.repetition_time = source.repetition_time or _seconds(_get(timing, "RepetitionTime"))
    source.flip_angle = source.flip_angle if source.flip_angle is not None else _number(_get(timing, "FlipAngle"))
    for index, group in enumerate(groups):
        yield _enhanced_frame(dataset, source, index, group, shared)


def _enhanced_frame(dataset: Any, source: Source, index: int, group: Any, shared: Any) -> Frame:
    kind = _group("MRImageFrameTypeSequence", group, shared)
    echo = _group("MREchoSequence", group, shared)
    content = _group("FrameContentSequence", group, shared)
    modifier = _group("MRModifierSequence", group, shared)
    image_type = _values(_get(kind, "FrameType")) or _values(dataset.get("ImageType"))
    private = _first(_get(_group_element(group, 0x2005140F), None))
    if private is not None and "ImageType" in private:
        image_type = (*image_type, *(v for v in _values(private.get("ImageType"))[2:] if v not in image_type))
    inversion = _values(_get(modifier, "InversionTimes"))
    recovers = _text(_get(modifier, "InversionRecovery")).upper() == "YES"
    source.inverts = source.inverts or recovers
    component = _text(_get(kind, "ComplexImageComponent") or dataset.get("ComplexImageComponent"))
    return Frame(
        source,
        index=index,
        image_type=image_type,
        component=_component(dataset, source, image_type, component),
        echo_time=_seconds(_get(echo, "EffectiveEchoTime") or dataset.get("EchoTime")),
        inversion_time=_seconds(inversion[0]) if inversion else None,
        coil=_enhanced_coil(_group("MRReceiveCoilSequence", group, shared)),
        temporal=_integer(_get(content, "TemporalPositionIndex")),
        position=_position(_get(_group("PlanePositionSequence", group, shared), "ImagePositionPatient")),
        orientation=_orientation(_get(_group("PlaneOrientationSequence", group, shared), "ImageOrientationPatient")),
        spacing=_floats(_get(_group("PixelMeasuresSequence", group, shared), "PixelSpacing")),
    )


def _component(dataset: Any, source: Source, image_type: tuple[str, ...], enhanced: str) -> str:
    values = {value.strip().upper() for value in image_type[2:]}
    if values & _COMPONENT_VALUES[0][1]:
        return "velocity"
    if source.vendor == "ge":
        if re.fullmatch(r"b0(map|rf)", source.sequence_name, re.IGNORECASE):
            return "fieldmap" if _integer(_private(dataset, GE_COLLAPSE), 2) == 0 else "mag"
        private = _private(dataset, GE_IMAGE_TYPE)
        if private is not None:
            return _GE_COMPONENTS.get(_integer(private, -1), "")
    for component, known in _COMPONENT_VALUES[:2]:
        if values & known:
            return component
    if enhanced.upper() in _ENHANCED_COMPONENTS:
        return _ENHANCED_COMPONENTS[enhanced.upper()]
    for component, known in _COMPONENT_VALUES[2:]:
        if values & known:
            return component
    philips = _text(_private(dataset, PHILIPS_COMPONENT)).upper()
    return {"M": "mag", "P": "phase", "R": "real", "I": "imag"}.get(philips, "")


def _coil(dataset: Any) -> str:
    for tag in (SIEMENS_COIL, SIEMENS_COIL_XA):
        text = _text(_private(dataset, tag))
        if text:
            return text
    return _plain(dataset, "ReceiveCoilName")


def _enhanced_coil(coil: Any) -> str:
    elements = _get(coil, "MultiCoilDefinitionSequence") or []
    used = [_text(e.get("MultiCoilElementName")) for e in elements if _text(e.get("MultiCoilElementUsed")) != "NO"]
    return ";".join(used) if used else _text(_get(coil, "ReceiveCoilName"))


def _group(name: str, group: Any, shared: Any) -> Any:
    for holder in (group, shared):
        item = _first(_get(holder, name))
        if item is not None:
            return item
    return None


def _group_element(group: Any, tag: int) -> Any:
    return group[tag].value if group is not None and tag in group else None


def _get(holder: Any, name: str | None) -> Any:
    if holder is None or name is None:
        return holder
    return holder.get(name)


def _first(sequence: Any) -> Any:
    try:
        return sequence[0]
    except (TypeError, IndexError, KeyError):
        return None


def _private(dataset: Any, tag: int) -> Any:
    if tag not in dataset:
        return None
    value = dataset[tag].value
    if isinstance(value, bytes):
        # implicit VR: the private elements that are read here are short text or one 16-bit integer
        printable = all(32 <= byte < 127 or byte == 0 for byte in value)
        if len(value) == 2 and not (printable and value.strip(b"\0 ").isalpha()):
            return int.from_bytes(value, "little", signed=True)
        return value.decode("latin-1").strip("\0 ")
    return value


def _plain(dataset: Any, keyword: str) -> str:
    """Text of an element of text type; the slow decoding of pydicom only where it is needed."""
    tag = _tag(keyword)
    if tag not in dataset:
        return ""
    item = dataset.get_item(tag)
    value = item.value
    if isinstance(value, bytes) and value.isascii():
        return printable(value.decode("ascii"))
    value = dataset[tag].value
    return _text(value) if isinstance(value, str) or not hasattr(value, "__iter__") else "\\".join(map(_text, value))


@cache
def _tag(keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    return Tag(tag_for_keyword(keyword) or 0)


def _text(value: Any) -> str:
    return "" if value is None else printable(str(value))


def printable(text: str) -> str:
    """``text`` without control characters (which could drive a terminal) and without blanks around it."""
    return (text if text.isprintable() else "".join(c for c in text if c.isprintable())).strip()


def _values(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split("\\"))
    try:
        return tuple(_text(part) for part in value)
    except TypeError:
        return (_text(value),)


def _number(value: Any) -> float | None:
    first = _values(value)
    try:
        number = float(first[0])
    except (IndexError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _integer(value: Any, default: int = 0) -> int:
    number = _number(value)
    return default if number is None else int(number)


def _seconds(value: Any) -> float | None:
    number = _number(value)
    return None if number is None or number < 0 else round(number / 1000.0, 9)


def _floats(value: Any) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _values(value))
    except ValueError:
        return ()


def _position(value: Any) -> tuple[float, float, float] | None:
    numbers = _floats(value)
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 and all(map(math.isfinite, numbers)) else None


def _orientation(value: Any) -> tuple[float, ...] | None:
    numbers = _floats(value)
    if len(numbers) != 6 or not all(map(math.isfinite, numbers)):
        return None
    return numbers if sum(n * n for n in numbers) > 1.0 else None
