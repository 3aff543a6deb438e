"""Names, images and sidecars of derivatives; the only module that spells a derivative's file name.

A derivative carries the entities of its source. Those that BIDS does not allow in the name of a map (``flip``,
``inv``, ``mt``, ``dir`` and others) move into the ``acq`` label, as does the suffix where two acquisitions of a
subject differ in nothing else::

    sub-1_acq-x_flip-2_mt-off_MPM  ->  sub-1_acq-xFlip2Mtoff_Chimap
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from qsmxt.bids.atomic import plain, write_bytes, write_json
from qsmxt.bids.compression import compress
from qsmxt.bids.entities import SHORT_NAMES, in_order, is_label, long_name, parse_name, stem
from qsmxt.bids.images import file_content
from qsmxt.bids.units import ProcessingUnit
from qsmxt.errors import InputError
from qsmxt.registry.artifacts import artifact as artifact_called

#: Name of the source dataset in BIDS URIs (``bids:raw:...``) and in ``DatasetLinks``.
RAW = "raw"

#: Entities of a source that the name of its maps may carry.
KEPT_ENTITIES = ("subject", "session", "task", "acquisition", "ceagent", "reconstruction", "run", "chunk")

#: Artifacts that show tissue outside the brain.
_WHOLE_HEAD = ("combined_magnitude", "swi", "minimum_intensity_projection", "magnitude", "wrapped_phase")

#: Acquisition parameters copied to sidecars where all echoes agree.
_COPIED = ("Manufacturer", "ManufacturersModelName", "RepetitionTime", "FlipAngle", "MRAcquisitionType")

#: Spaces whose meaning BIDS knows by their names; any other needs a ``SpatialReference``.
_STANDARD_SPACE = re.compile(r"(?:MNI|ICBM|OASIS|fsaverage|fsLR|UNCInfant|CIVET|Colin|IXI549|NKI|ACPC)[A-Za-z0-9]*")

_EXTENSION = re.compile(r"(?:\.[A-Za-z0-9]+){1,2}")
_DATATYPES = ("anat", "fmap", "figures")


class Derivatives:
    """Paths in the derivative dataset ``out_dir``."""

    def __init__(self, out_dir: str | Path) -> None:
        self.out_dir = Path(os.path.abspath(out_dir))  # noqa: PTH100 (links must survive, ".." must not)

    def path(
        self,
        unit: ProcessingUnit,
        suffix: str,
        *,
        desc: str | None = None,
        extension: str = ".nii.gz",
        datatype: str = "anat",
        **entities: str,
    ) -> Path:
        """File of a map of ``unit``; ``entities`` by long or short name are added to those of the source.

        Raises
        ------
        InputError
            If a label, the suffix or the extension holds characters that BIDS does not allow.
        """
        labels = {**derivative_entities(unit), **{long_name(name): str(label) for name, label in entities.items()}}
        if desc is not None:
            labels["description"] = desc
        folder = self._folder(unit, session=datatype != "figures") / _checked_datatype(datatype)
        return folder / f"{stem(labels, suffix)}{_checked_extension(extension)}"

    def artifact(self, unit: ProcessingUnit, name: str, **more: str) -> Path:
        """File of the artifact called ``name`` under its own suffix and ``desc``."""
        record = artifact_called(name)
        if record.suffix is None:
            raise InputError(f"{name}: expected an artifact that has a BIDS suffix, found one that is never saved")
        return self.path(unit, record.suffix, desc=record.desc, **more)

    def figure(
        self, unit: ProcessingUnit, suffix: str, *, desc: str | None = None, extension: str = ".png", **entities: str
    ) -> Path:
        """File of a figure: all of a subject lie in one folder, the session is in the name."""
        return self.path(unit, suffix, desc=desc, extension=extension, datatype="figures", **entities)

    def report(self, subject: str) -> Path:
        """HTML page of a subject."""
        return self.out_dir / f"sub-{_checked_label('subject', subject)}.html"

    def logs(self, subject: str) -> Path:
        """Folder for logs, crash files, settings and citations of a subject's run."""
        return self.out_dir / "logs" / f"sub-{_checked_label('subject', subject)}"

    def _folder(self, unit: ProcessingUnit, *, session: bool) -> Path:
        folder = self.out_dir / f"sub-{_checked_label('subject', unit.subject)}"
        if session and unit.session is not None:
            folder /= f"ses-{_checked_label('session', unit.session)}"
        return folder


def derivative_entities(unit: ProcessingUnit) -> dict[str, str]:
    """Entities, by long names, that the maps of ``unit`` carry."""
    kept = {name: label for name, label in unit.entities.items() if name in KEPT_ENTITIES}
    moved = [
        f"{SHORT_NAMES.get(name, name).capitalize()}{label}"
        for name, label in in_order(unit.entities).items()
        if name not in KEPT_ENTITIES
    ]
    if not unit.distinct:
        moved.append(unit.suffix)
    if moved:
        kept["acquisition"] = kept.get("acquisition", "") + "".join(moved)
    return in_order(kept)


def save_volume(
    path: Path, array: np.ndarray, affine: np.ndarray, *, unit_label: str, sidecar: Mapping[str, Any]
) -> Path:
    """Write a map and its sidecar, each in one step; the sidecar holds the digest of the file.

    Parameters
    ----------
    path
        ``.nii.gz`` or ``.nii`` file.
    array
        (x, y, z). Masks (bool) are stored as uint8, labels as integers, everything else as float32.
    affine
        4 x 4 voxel-to-scanner matrix, mm.
    unit_label
        ``Units`` of the sidecar; masks and labels have none.
    sidecar
        The rest of it.

    Raises
    ------
    InputError
        If the array is not one volume; if the name has ``space`` or ``res`` and the sidecar does not say what they
        mean (``SpatialReference``, ``Resolution``).
    OutputError
        If a file cannot be written.
    """
    if array.ndim != 3:
        raise InputError(f"{path.name}: expected one volume (x, y, z), found shape {array.shape}")
    return _save(path, array, affine, unit_label, sidecar)


def save_series(
    path: Path, array: np.ndarray, affine: np.ndarray, *, unit_label: str, sidecar: Mapping[str, Any]
) -> Path:
    """Write ``(volume, x, y, z)`` as one file, the volumes on its fourth axis; all else as :func:`save_volume`."""
    if array.ndim != 4:
        raise InputError(f"{path.name}: expected (volume, x, y, z), found shape {array.shape}")
    return _save(path, np.moveaxis(array, 0, -1), affine, unit_label, sidecar)


def _save(path: Path, array: np.ndarray, affine: np.ndarray, unit_label: str, sidecar: Mapping[str, Any]) -> Path:
    stored = _storable(array)
    metadata = dict(sidecar)
    _check_reference(path, metadata)
    if stored.dtype.kind == "f":
        metadata["Units"] = unit_label
    else:
        metadata.pop("Units", None)
    _remove_leftovers(path)
    content = _nifti(path, stored, affine)
    write_json(sidecar_path(path), {**metadata, "Digest": {"sha256": hashlib.sha256(content).hexdigest()}})
    return write_bytes(path, content)


def sidecar_path(path: Path) -> Path:
    """JSON file next to an image or table."""
    return path.with_name(path.name.partition(".")[0] + ".json")


def sidecar(
    unit: ProcessingUnit,
    bids_dir: str | Path,
    artifact: str,
    *,
    method_records: Sequence[Any],
    parameters: Mapping[str, Any],
    version: str,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Provenance of a map.

    Parameters
    ----------
    unit, bids_dir
        What it was made of.
    artifact
        Name of the quantity.
    method_records
        The methods that led to it, in order (:class:`qsmxt.registry.methods.Method`).
    parameters
        All their parameters, by method.
    version
        Of QSMxT.
    extra
        Further entries, which take precedence.
    """
    record = artifact_called(artifact)
    times = [echo.echo_time for echo in unit.echoes]
    values: dict[str, Any] = {
        "Description": record.description,
        "Sources": sources(unit, bids_dir),
        "EchoTime": times if len(times) > 1 else times[0],
        "MagneticFieldStrength": unit.field_strength,
        "EstimationAlgorithm": "; ".join(method.title for method in method_records),
        "EstimationParameters": parameters,
        "EstimationReference": sorted({key for method in method_records for key in method.references}),
        "QSMxTVersion": version,
        **_acquisition_parameters(unit),
    }
    if record.kind not in ("mask", "labels"):
        values["Units"] = record.unit
        values["SkullStripped"] = artifact not in _WHOLE_HEAD
    if record.kind == "mask":
        values["Type"] = "Brain" if artifact in ("mask", "eroded_mask") else "ROI"
    values.update(extra or {})
    return plain({key: value for key, value in values.items() if value not in ("", [], {})})


def susceptibility_reference(method: Any, parameters: Mapping[str, Any], offset: float) -> dict[str, Any]:
    """Entry of the sidecar of a susceptibility map that says what it is relative to.

    Parameters
    ----------
    method
        The method of referencing (:class:`qsmxt.registry.methods.Method`).
    parameters
        Its parameters.
    offset
        Mean of the region before, which was subtracted, ppm.
    """
    stated = {"Method": method.key, "Region": method.title, "Offset": float(offset), "Units": "ppm"}
    return {"SusceptibilityReference": {**stated, **({"Parameters": plain(parameters)} if parameters else {})}}


def sources(unit: ProcessingUnit, bids_dir: str | Path) -> list[str]:
    """BIDS URIs of the images of ``unit``."""
    return [bids_uri(path, bids_dir) for path in unit.files()]


def bids_uri(path: str | Path, root: str | Path, dataset: str = RAW) -> str:
    """URI of a file in the dataset at ``root``; ``dataset`` is its key in ``DatasetLinks``, empty for this one.

    >>> bids_uri("/data/sub-1/anat/sub-1_T1w.nii.gz", "/data")
    'bids:raw:sub-1/anat/sub-1_T1w.nii.gz'
    """
    inside = Path(os.path.abspath(path)).relative_to(os.path.abspath(root))  # noqa: PTH100
    return f"bids:{dataset}:{quote(inside.as_posix())}"


def _acquisition_parameters(unit: ProcessingUnit) -> dict[str, Any]:
    first, *others = [echo.metadata for echo in unit.echoes]
    return {
        key: first[key] for key in _COPIED if key in first and all(other.get(key) == first[key] for other in others)
    }


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind in "iu":
        return array if array.dtype.itemsize <= 2 else array.astype(np.int32)
    return array.astype(np.float32, copy=False)


def _nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> bytes:
    """The file as bytes, the same for the same array: no time, no file name in it."""
    import nibabel

    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm", "unknown")
    content = file_content(image)
    return compress(content) if path.name.endswith(".gz") else bytes(content)


def _check_reference(path: Path, metadata: Mapping[str, Any]) -> None:
    entities, _, _ = parse_name(path.name)
    space = entities.get("space")
    if space is not None and not _STANDARD_SPACE.fullmatch(space) and "SpatialReference" not in metadata:
        raise InputError(f"{path.name}: expected SpatialReference in the sidecar, as space-{space} is no standard one")
    if "resolution" in entities and "Resolution" not in metadata:
        raise InputError(f"{path.name}: expected Resolution in the sidecar, which tells what res means")


def _remove_leftovers(path: Path) -> None:
    """Temporary files of a run that was killed while it wrote ``path``."""
    for name in (path.name, sidecar_path(path).name):
        for leftover in path.parent.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def _checked_label(name: str, label: str) -> str:
    if not is_label(label):
        raise InputError(f"{name}: expected a label of letters and digits, found {label!r}; rename it")
    return label


def _checked_datatype(datatype: str) -> str:
    if datatype not in _DATATYPES:
        raise InputError(f"datatype: expected one of {', '.join(_DATATYPES)}, found {datatype!r}")
    return datatype


def _checked_extension(extension: str) -> str:
    if not _EXTENSION.fullmatch(extension):
        raise InputError(f"extension: expected something like .nii.gz, found {extension!r}")
    return extension
