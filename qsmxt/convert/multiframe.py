"""A map as one enhanced multi-frame instance (Enhanced MR Image Storage) instead of one classic instance a slice.

Geometry, scale and windows move from the slices to the functional groups; what is the same in all planes stands in
the shared ones.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np

ENHANCED_MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4.1"
#: What the classic image has for itself, or what the functional groups say.
_CLASSIC = (
    "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime",
    "EchoTrainLength", "FlipAngle", "AcquisitionDate", "AcquisitionTime", "ImageType", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth", "VOILUTFunction", "ImagingFrequency",
    "ImagedNucleus", "RealWorldValueMappingSequence", "BodyPartExamined", "DerivationDescription",
)  # fmt: skip


def multiframe(header: Any, stored: np.ndarray, affine: np.ndarray, uid: Callable[..., str], decimal: Any) -> Any:
    """The instance, without its file meta information.

    Parameters
    ----------
    header
        Attributes of the classic slices that do not differ between them.
    stored
        Numbers (slice, row, column), int16.
    affine
        From (column, row, slice) to the patient (LPS, mm).
    uid
        Makes an identifier of texts.
    decimal
        Makes a decimal string of a number.
    """
    from pydicom.dataset import Dataset

    dataset = Dataset()
    dataset.update({element.tag: copy(element) for element in header if element.keyword not in _CLASSIC})
    dataset.SOPClassUID = ENHANCED_MR_IMAGE_STORAGE
    dataset.SOPInstanceUID = uid("instance", header.SeriesInstanceUID, "enhanced")
    dataset.InstanceNumber, dataset.NumberOfFrames = 1, len(stored)
    frame_type = ["DERIVED", "PRIMARY", *(header.ImageType[2:])][:4]
    dataset.ImageType = [*frame_type, *["NONE"] * (4 - len(frame_type))]
    _describe_frames(dataset)
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.AcquisitionContextSequence = []
    dataset.ApplicableSafetyStandardAgency = "IEC"
    # here, unlike in classic images, these must not be empty
    for name, value in (("ContentDate", "19000101"), ("ContentTime", "000000")):
        setattr(dataset, name, dataset.get(name) or value)
    for name, value in (("Manufacturer", "unknown"), ("ManufacturerModelName", "unknown"), ("DeviceSerialNumber", "0")):
        if not dataset.get(name):
            setattr(dataset, name, value)
    _dimensions(dataset, uid)
    dataset.SharedFunctionalGroupsSequence = [_shared(header, dataset, affine, decimal)]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(affine, index, decimal) for index in range(len(stored))]
    dataset.PixelData = stored.astype("<i2").tobytes()
    return dataset


def _item(**values: Any) -> list[Any]:
    """A sequence of one item."""
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return [item]


def _describe_frames(dataset: Any) -> None:
    dataset.PixelPresentation, dataset.VolumetricProperties = "MONOCHROME", "VOLUME"
    dataset.VolumeBasedCalculationTechnique, dataset.ComplexImageComponent = "NONE", "MAGNITUDE"
    dataset.AcquisitionContrast = "UNKNOWN"


def _dimensions(dataset: Any, uid: Callable[..., str]) -> None:
    """Frames are numbered by stack and position in it."""
    organization = uid("dimensions", dataset.SeriesInstanceUID)
    dataset.DimensionOrganizationSequence = _item(DimensionOrganizationUID=organization)
    dataset.DimensionOrganizationType = "3D"
    dataset.DimensionIndexSequence = [
        _item(DimensionOrganizationUID=organization, DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111,
              DimensionDescriptionLabel=label)[0]
        for pointer, label in ((0x00209056, "Stack ID"), (0x00209057, "In-Stack Position Number"))
    ]  # fmt: skip


def _shared(header: Any, dataset: Any, affine: np.ndarray, decimal: Any) -> Any:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :2] / sizes[:2]
    anatomy = _item(CodeValue="12738006", CodingSchemeDesignator="SCT", CodeMeaning="Brain")
    return _item(
        PixelMeasuresSequence=_item(
            PixelSpacing=[decimal(sizes[1]), decimal(sizes[0])], SliceThickness=decimal(sizes[2]),
            SpacingBetweenSlices=decimal(sizes[2]),
        ),
        PlaneOrientationSequence=_item(ImageOrientationPatient=[decimal(v) for v in axes.T.ravel()]),
        FrameAnatomySequence=_item(FrameLaterality="U", AnatomicRegionSequence=anatomy),
        PixelValueTransformationSequence=_item(
            RescaleSlope=header.RescaleSlope, RescaleIntercept=header.RescaleIntercept, RescaleType="US"
        ),
        FrameVOILUTSequence=_item(
            WindowCenter=header.WindowCenter, WindowWidth=header.WindowWidth, VOILUTFunction=header.VOILUTFunction
        ),
        RealWorldValueMappingSequence=header.RealWorldValueMappingSequence,
        MRImageFrameTypeSequence=_item(
            FrameType=list(dataset.ImageType), PixelPresentation=dataset.PixelPresentation,
            VolumetricProperties=dataset.VolumetricProperties,
            VolumeBasedCalculationTechnique=dataset.VolumeBasedCalculationTechnique,
            ComplexImageComponent=dataset.ComplexImageComponent, AcquisitionContrast=dataset.AcquisitionContrast,
        ),
    )[0]  # fmt: skip


def _frame(affine: np.ndarray, index: int, decimal: Any) -> Any:
    position = affine[:3, 3] + index * affine[:3, 2]
    return _item(
        FrameContentSequence=_item(
            StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, index + 1], FrameAcquisitionNumber=1
        ),
        PlanePositionSequence=_item(ImagePositionPatient=[decimal(v) for v in position]),
    )[0]
