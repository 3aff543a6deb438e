"""From files to arrays: the digest of the input, and its import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, TraitedSpec, traits

from qsmxt.interfaces.base import Interface, StateOutputSpec
from qsmxt.interfaces.state import State, describe_grid, digest, digest_each, digest_files, save_arrays


class FingerprintInputSpec(BaseInterfaceInputSpec):
    """A unit."""

    unit = traits.Str(mandatory=True, desc="processing unit (JSON)")
    masks = traits.Str("{}", usedefault=True, desc="masks made elsewhere: file by name (JSON)")
    spin_echo = traits.Str("{}", usedefault=True, desc="map of R2 or train of spin echoes (JSON)")


class FingerprintOutputSpec(TraitedSpec):
    """A digest."""

    fingerprint = traits.Str(desc="digest of the contents of the unit's images and of its metadata")
    digests = traits.List(traits.Str(), desc="SHA-256 of every image")


class Fingerprint(Interface):
    """Digest of a unit's files. It always runs: only this node looks at the files again after a restart."""

    input_spec = FingerprintInputSpec
    output_spec = FingerprintOutputSpec
    _always_run = True

    def execute(self, folder: str) -> None:
        """Read all images once."""
        from qsmxt.bids.units import ProcessingUnit

        unit = ProcessingUnit.from_dict(json.loads(self.inputs.unit))
        masks = json.loads(self.inputs.masks)
        spin_echo = json.loads(self.inputs.spin_echo)
        images = [str(path) for path in unit.files()]
        others = [*masks.values(), *spin_echo.get("files", ())]
        self._results["digests"] = digest_each(images)
        contents = self._results["digests"], digest_files(others)
        self._results["fingerprint"] = digest(*contents, unit.to_dict(), list(masks), spin_echo)


class LoadAcquisitionInputSpec(BaseInterfaceInputSpec):
    """A unit, its digest, and how to read it."""

    unit = traits.Str(mandatory=True, desc="processing unit (JSON)")
    fingerprint = traits.Str(mandatory=True, desc="digest of its files")
    digests = traits.List(traits.Str(), desc="SHA-256 of every image")
    reading = traits.Str("{}", usedefault=True, desc="phase sign and range (JSON)")
    masks = traits.Str("{}", usedefault=True, desc="masks made elsewhere: file by name (JSON)")
    spin_echo = traits.Str("{}", usedefault=True, desc="map of R2 or train of spin echoes (JSON)")
    code = traits.Str(mandatory=True, desc="version and digest of the code")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads")


class LoadAcquisition(Interface):
    """Images of a unit as arrays: phase in radians and its quality, magnitude, echo times."""

    input_spec = LoadAcquisitionInputSpec
    output_spec = StateOutputSpec

    def execute(self, folder: str) -> None:
        """Load and save."""
        from qsmxt.algorithms.quality import phase_quality
        from qsmxt.algorithms.signal import combine_magnitude
        from qsmxt.bids.acquisition import load_acquisition
        from qsmxt.bids.units import ProcessingUnit

        unit = ProcessingUnit.from_dict(json.loads(self.inputs.unit))
        reading = json.loads(self.inputs.reading)
        phase_range = tuple(reading["phase_range"]) if reading.get("phase_range") else None
        acquired = load_acquisition(unit, phase_sign=reading.get("phase_sign", "auto"), phase_range=phase_range)
        phase, times = acquired.wrapped_phase, acquired.echo_times
        arrays: dict[str, Any] = {
            "wrapped_phase": phase,
            "magnitude": acquired.magnitude,
            "combined_magnitude": combine_magnitude(acquired.magnitude),
            "phase_quality": phase_quality(phase, None, times, acquired.grid),
            "echo_times": np.asarray(acquired.echo_times, dtype=np.float64),
            "field_strength": np.float64(acquired.field_strength),
        }
        for name, file in json.loads(self.inputs.masks).items():
            if name == T1W_FILE:
                arrays["t1w"] = aligned_t1w(Path(file), arrays["combined_magnitude"], acquired.affine, Path(folder))
            elif name in REGION_FILES:
                arrays[REGION_FILES[name]] = read_region(REGION_FILES[name], Path(file), unit.files()[0])
            else:
                arrays[external_mask(name)] = read_mask(Path(file), unit.files()[0])
        spin_echo = json.loads(self.inputs.spin_echo)
        if spin_echo:
            from qsmxt.interfaces.registration import Volume
            from qsmxt.interfaces.spinecho import spin_echo_arrays

            magnitude = Volume(arrays["combined_magnitude"], np.asarray(acquired.affine, dtype=float))
            arrays |= spin_echo_arrays(spin_echo, magnitude, Path(folder))
        state = State(
            fingerprint=digest(self.inputs.fingerprint, self.inputs.reading, self.inputs.code),
            grid=describe_grid(acquired.grid),
            affine=np.asarray(acquired.affine, dtype=float).tolist(),
            arrays=save_arrays(Path(folder), arrays),
            notes=list(acquired.notes),
            statistics={"has_magnitude": bool(acquired.has_magnitude), "echoes": len(acquired.echo_times)},
            corrections=dict(acquired.corrections),
            digests=list(self.inputs.digests),
        )
        self._results["state"] = state.to_json()


#: What the T1-weighted image is called among the files of masks; no mask can have that name.
T1W_FILE = "input:t1w"

#: What regions to refer to are called among the files of masks, and the arrays that they become.
REGION_FILES = {"input:csf": "csf_mask", "input:labels": "labels"}


def aligned_t1w(file: Path, magnitude: np.ndarray, affine: np.ndarray, folder: Path) -> np.ndarray:
    """The T1-weighted image in ``file``, rigidly registered to the magnitude and on its grid, float32."""
    from qsmxt.interfaces.registration import Volume, correct_bias, read_volume, register_rigid, resample

    fixed, moving = Volume(magnitude, np.asarray(affine, dtype=float)), read_volume(file)
    transform = register_rigid(correct_bias(fixed), correct_bias(moving), None, folder)
    return np.maximum(resample(moving, fixed, [transform]), 0)


def external_mask(name: str) -> str:
    """Name in a state of the mask that the sections call ``mask:name``."""
    return f"external_{name}_mask"


def read_region(name: str, file: Path, reference: Path) -> np.ndarray:
    """The array ``name``, a mask (bool) or labels (int32), from a file on the grid of ``reference``."""
    from qsmxt.registry.artifacts import ARTIFACTS

    if ARTIFACTS[name].kind == "mask":
        return read_mask(file, reference)
    from qsmxt.bids.images import check_same_grid, read_header, stored_values

    check_same_grid(read_header(reference), read_header(file))
    values, slope, intercept = stored_values(file)
    return np.ascontiguousarray(np.rint(values * slope + intercept).astype(np.int32))


def read_mask(file: Path, reference: Path) -> np.ndarray:
    """A mask made elsewhere, bool; :class:`~qsmxt.errors.InputError` if it lies on another grid than ``reference``."""
    from qsmxt.bids.images import check_same_grid, read_header, stored_values

    check_same_grid(read_header(reference), read_header(file))
    values, slope, intercept = stored_values(file)
    return np.ascontiguousarray(values * slope + intercept > 0.5)
