"""Sidecars of raw images: what BIDS and the reconstruction need, without what identifies a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsmxt.convert.headers import Source
from qsmxt.convert.volumes import Volume

#: Never copied: the person, and what only dcm2niix means by it.
NEVER = (
    "PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "OperatorsName", "ReferringPhysicianName",
    "PerformingPhysicianName", "PatientAddress", "BidsGuess", "Units", "EchoNumber",
)  # fmt: skip
#: What is kept when identity is removed: physics of the scanner and of the sequence.
TECHNICAL = frozenset(
    {
        "Modality", "MagneticFieldStrength", "ImagingFrequency", "Manufacturer", "ManufacturersModelName", "BodyPart",
        "PatientPosition", "SoftwareVersions", "MRAcquisitionType", "SeriesDescription", "ProtocolName",
        "ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName", "PulseSequenceType", "ImageType",
        "NonlinearGradientCorrection", "SeriesNumber", "SliceThickness", "SpacingBetweenSlices", "SAR", "EchoTime",
        "EchoTime1", "EchoTime2", "RepetitionTime", "InversionTime", "FlipAngle", "MTState", "SpoilingState",
        "PartialFourier", "PartialFourierDirection", "BaseResolution", "ShimSetting", "TxRefAmp", "PhaseResolution",
        "ReceiveCoilName", "ReceiveCoilActiveElements", "CoilString", "CoilCombinationMethod", "PulseSequenceDetails",
        "MatrixCoilMode", "PercentPhaseFOV", "PercentSampling", "EchoTrainLength", "PhaseEncodingSteps",
        "FrequencyEncodingSteps", "PhaseEncodingStepsOutOfPlane", "AcquisitionMatrixPE", "ReconMatrixPE",
        "ParallelReductionFactorInPlane", "ParallelReductionFactorOutOfPlane", "ParallelReductionOutOfPlane",
        "ParallelAcquisitionTechnique", "AcquisitionDuration", "PixelBandwidth", "DwellTime",
        "PhaseEncodingDirection", "PhaseEncodingAxis", "InPlanePhaseEncodingDirectionDICOM",
        "ImageOrientationPatientDICOM", "WaterFatShift", "BandwidthPerPixelPhaseEncode", "EffectiveEchoSpacing",
        "TotalReadoutTime", "EstimatedEffectiveEchoSpacing", "EstimatedTotalReadoutTime",
        "DerivedVendorReportedEchoSpacing", "PhilipsRescaleSlope", "PhilipsRescaleIntercept", "PhilipsRWVSlope",
        "PhilipsRWVIntercept", "PhilipsScaleSlope", "UsePhilipsFloatNotDisplayScaling", "RefLinesPE",
        "ConsistencyInfo", "NumberOfAverages", "ConversionSoftware", "ConversionSoftwareVersion", "Units",
        "PhaseCorrections", "CoilCombination", "RepetitionTimeExcitation", "RepetitionTimePreparation", "NumberShots",
    }
)  # fmt: skip


def complete(sidecar: Mapping[str, Any], volume: Volume, part: str) -> dict[str, Any]:
    """The sidecar of dcm2niix with the numbers of the header in BIDS units, without the person.

    Parameters
    ----------
    sidecar
        As converted and corrected.
    volume
        What it was made from.
    part
        ``mag``, ``phase``, ..., or the suffix of a field map.
    """
    source = volume.source
    kept = {key: value for key, value in sidecar.items() if key not in NEVER}
    if part != "phasediff":
        kept.pop("EchoTime1", None)
        kept.pop("EchoTime2", None)
    if part in ("phase", "fieldmap", "phase1", "phase2", "phasediff") and sidecar.get("Units") is not None:
        kept["Units"] = sidecar["Units"]
    for key, value in _numbers(source, volume).items():
        if value is not None:
            kept[key] = value
    return kept


def _numbers(source: Source, volume: Volume) -> dict[str, float | None]:
    strength = source.field_strength
    if strength is not None and strength > 100:
        strength /= 1e4  # some files give gauss
    return {
        "EchoTime": volume.echo_time or None,
        "RepetitionTime": source.repetition_time or None,
        "InversionTime": volume.first.inversion_time or None,
        "FlipAngle": source.flip_angle or None,
        "MagneticFieldStrength": strength or None,
    }


def without_identity(sidecar: Mapping[str, Any], private_words: set[str]) -> dict[str, Any]:
    """Only technical entries; texts that hold a private word are dropped too."""
    kept = {key: value for key, value in sidecar.items() if key in TECHNICAL}
    return {
        key: value for key, value in kept.items() if not (isinstance(value, str) and mentions(value, private_words))
    }


def mentions(text: str, private_words: set[str]) -> bool:
    """Whether a text holds one of the words, whatever the case."""
    folded = text.casefold()
    return any(word in folded for word in private_words)
