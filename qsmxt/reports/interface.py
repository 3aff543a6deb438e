"""The node that draws a unit's figures and measures its quality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, isdefined, traits

from qsmxt.interfaces.state import State
from qsmxt.reports.pictures import MASK_LABELS, PICTURES, VIEWED, Picture

#: Bounds (ppm) and bins of the histogram of susceptibility.
HISTOGRAM = (-0.2, 0.2, 100)

#: Suffix of the name of a record to get that of its quality.
QUALITY = "_quality.json"

_AXES = {"i": 0, "j": 1, "k": 2}


class DrawFiguresInputSpec(BaseInterfaceInputSpec):
    """Finished derivatives of a unit."""

    unit = traits.Str(mandatory=True, desc="processing unit (JSON)")
    derivatives = traits.Str(mandatory=True, desc="folder laid out like the output dataset")
    record = traits.Str(mandatory=True, desc="record of the run")
    state = traits.Str(desc="state with what is not saved (JSON)")
    fingerprint = traits.Str(mandatory=True, desc="digest of the derivatives")
    code = traits.Str(mandatory=True, desc="version and digest of the code")


class DrawFiguresOutputSpec(TraitedSpec):
    """A folder laid out like the output dataset."""

    folder = traits.Str(desc="folder laid out like the output dataset")


class DrawFigures(SimpleInterface):
    """Mosaics of the maps (PNG), volumes of the viewer (NIfTI), and quality metrics (JSON next to the record)."""

    input_spec = DrawFiguresInputSpec
    output_spec = DrawFiguresOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from qsmxt.bids.atomic import write_json
        from qsmxt.bids.outputs import Derivatives
        from qsmxt.bids.units import ProcessingUnit

        unit = ProcessingUnit.from_dict(json.loads(self.inputs.unit))
        record = Path(self.inputs.record)
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        state = State.from_json(self.inputs.state) if isdefined(self.inputs.state) else None
        maps = Maps(Path(self.inputs.derivatives), files, state)
        target = Derivatives(Path(runtime.cwd) / "derivatives")
        drawing = _Drawing(maps, unit, target)
        drawing.draw()
        quality = {"unit": unit.name, "figures": drawing.figures, "viewer": drawing.viewer}
        if "chi" in files and maps.has("mask"):
            quality["metrics"] = maps.measure(phase_axis(unit))
            quality["histogram"] = histogram(maps.array("chi"), maps.array("mask"))
        write_json(target.logs(unit.subject) / f"{record.stem}{QUALITY}", quality)
        self._results["folder"] = str(target.out_dir)
        return runtime


def phase_axis(unit: Any) -> int | None:
    """Voxel axis of phase encoding, from the sidecar."""
    return _AXES.get(str(unit.echoes[0].metadata.get("PhaseEncodingDirection", ""))[:1])


def histogram(chi: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Shares of the voxels of the mask in equal bins of susceptibility; what lies outside is in the outermost."""
    low, high, bins = HISTOGRAM
    values = np.clip(chi[np.asarray(mask, dtype=bool)], low, np.nextafter(high, low))
    counts = np.histogram(values, bins, (low, high))[0]
    return {"low": low, "high": high, "shares": (counts / max(1, values.size)).round(6).tolist()}


class Maps:
    """The maps of a record, and those of a state where nothing is saved of them."""

    def __init__(self, folder: Path, files: dict[str, str], state: State | None) -> None:
        self.folder, self.files, self.state = folder, files, state
        self._read: dict[str, Any] = {}

    def has(self, name: str) -> bool:
        """Whether there is such a map."""
        if name == "two_pass_difference":
            return self.has("reliable_chi") and self.has("filled_chi")
        return name in self.files or (self.state is not None and name in self.state.arrays)

    def array(self, name: str) -> Any:
        """Array of a map; of the first echo, where it has echoes."""
        if name not in self._read:
            self._read[name] = self._array(name)
        return self._read[name]

    def _array(self, name: str) -> Any:
        if name == "two_pass_difference":
            reliable, filled = self.array("reliable_chi"), self.array("filled_chi")
            return np.where(reliable != 0, reliable - filled, np.float32(0))
        array = self.state.load(name) if self.state is not None else None
        if array is None:
            return np.asanyarray(self._image(name).dataobj)
        if array.dtype == bool:
            return array.view(np.uint8)
        return array[0] if array.ndim == 4 else array

    def upright(self, name: str) -> Any:
        """The map with its axes along those of the body."""
        from qsmxt.reports.figures import upright

        return upright(self.array(name), self.affine(name))

    def affine(self, name: str) -> np.ndarray:
        """Affine of the grid of a map."""
        if self.state is not None and name in self.state.arrays:
            return np.array(self.state.affine)
        return np.asarray(self._image(name).affine)

    def _image(self, name: str) -> Any:
        import nibabel

        return nibabel.load(self.folder / self.files[name])

    def measure(self, axis: int | None) -> dict[str, float]:
        """Quality metrics."""
        from qsmxt.algorithms.statistics.quality import NEEDED, measure
        from qsmxt.geometry import Grid

        arrays = {name: self.array(name) for name in NEEDED if self.has(name)}
        image = self._image("chi")
        return measure(arrays, Grid.from_affine(image.affine, image.shape), phase_axis=axis)


class _Drawing:
    """Pictures of one record, and the list of them."""

    def __init__(self, maps: Maps, unit: Any, target: Any) -> None:
        self.maps, self.unit, self.target = maps, unit, target
        self.figures: list[dict[str, str]] = []
        self.windows: dict[str, tuple[float, float]] = {}
        self.viewer: dict[str, Any] = {}

    def draw(self) -> None:
        """Draw all there is."""
        from qsmxt.reports.figures import Upright

        whole = "chi" in self.maps.files
        drawn = [p for p in PICTURES if p.name in self.maps.files or (whole and self.maps.has(p.name))]
        if not drawn:
            return
        if self.maps.has("mask"):
            mask = self.maps.upright("mask")
            mask = Upright(mask.array > 0, mask.voxel_size)
        else:
            first = self.maps.upright(drawn[0].name)
            mask = Upright(np.ones(first.array.shape, dtype=bool), first.voxel_size)
        for picture in drawn:
            self._picture(picture, mask)
        if whole:
            self._volumes()

    def _picture(self, picture: Picture, mask: Any) -> None:
        from qsmxt.bids.atomic import write_bytes
        from qsmxt.reports.figures import mosaic, png

        shown = picture.background if picture.background and self.maps.has(picture.background) else picture.name
        volume = self.maps.upright(shown)
        window = picture.window or brightness(volume.array, mask.array)
        self.windows[picture.name] = window
        contours = [self.maps.upright(name) for name in picture.contours if self.maps.has(name)]
        suffix, desc = self._names(picture)
        path = self.target.figure(self.unit, suffix, desc=desc)
        write_bytes(path, png(mosaic(volume, mask, window, contours=contours)))
        self.figures.append({"name": picture.name, "title": picture.title, "file": self._relative(path)})

    def _names(self, picture: Picture) -> tuple[str, str | None]:
        from qsmxt.registry.artifacts import ARTIFACTS

        if picture.desc is not None:
            return "T2starw", picture.desc
        artifact = ARTIFACTS[picture.name]
        return artifact.suffix or "T2starw", artifact.desc

    def _volumes(self) -> None:
        """Maps and mask for the slice viewer."""
        from qsmxt.bids.atomic import write_bytes
        from qsmxt.reports.volumes import EXTENSION, frame, label_volume, map_volume

        affine = self.maps.affine("chi")
        shape = self.maps.array("chi").shape
        mask = self.maps.array("mask") > 0 if self.maps.has("mask") else np.ones(shape, dtype=bool)
        shown = frame(mask, affine)
        pictures = {picture.name: picture for picture in PICTURES}
        maps = []
        for viewed in VIEWED:
            if not self.maps.has(viewed.name) or self.maps.array(viewed.name).shape != shape:
                continue
            suffix, desc = self._names(pictures[viewed.name])
            path = self.target.figure(self.unit, suffix, desc=desc, extension=EXTENSION)
            inside = mask if viewed.masked else None
            write_bytes(path, map_volume(self.maps.array(viewed.name), affine, shown, viewed.step, inside))
            low, high = self.windows[viewed.name]
            maps.append({"name": viewed.title, "unit": viewed.unit, "digits": viewed.digits, "low": low, "high": high,
                         "file": self._relative(path)})  # fmt: skip
        self.viewer = {"maps": maps, "overlays": [], **shown.to_dict()}
        if self.maps.has("mask"):
            parts = mask.astype(np.uint8)
            if self.maps.has("reliable_mask"):
                parts += mask & (self.maps.array("reliable_mask") > 0)
            path = self.target.figure(self.unit, "mask", desc="brain", extension=EXTENSION)
            write_bytes(path, label_volume(parts, affine, shown))
            labels = MASK_LABELS if parts.max() > 1 else {"1": "mask"}
            self.viewer["overlays"] = [{"name": "Mask", "file": self._relative(path), "labels": labels}]

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.target.out_dir).as_posix()


def brightness(array: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Window of an image without a unit."""
    from qsmxt.algorithms.quantiles import quantile

    inside = array[mask]
    return (0.0, quantile(inside, 0.99) * 1.3 + 1e-12) if inside.size else (0.0, 1.0)
