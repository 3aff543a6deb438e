"""The node that draws a unit's figures and measures its quality."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, isdefined, traits

from qsmxt.interfaces.state import State


@dataclass(frozen=True)
class Picture:
    """What is drawn.

    Attributes
    ----------
    name
        Name of the artifact.
    title
        With the meaning of black and white.
    window
        Values shown black and white; ``None``: from 0 to above the 99th percentile.
    desc
        Label of its file, if the artifact itself is not saved.
    contours
        Artifacts whose outlines are drawn.
    background
        What is shown in its place, if there is such an artifact.
    """

    name: str
    title: str
    window: tuple[float, float] | None = None
    desc: str | None = None
    contours: tuple[str, ...] = ()
    background: str | None = None


#: Pictures in the order of the page.
PICTURES: tuple[Picture, ...] = (
    Picture("chi", "Susceptibility, -0.1 (black) to 0.1 ppm (white)", (-0.1, 0.1)),
    Picture("magnitude", "Magnitude of the first echo", None, "magnitude"),
    Picture("wrapped_phase", "Phase of the first echo, -3.14 (black) to 3.14 rad (white)", (-np.pi, np.pi), "phase"),
    Picture("phase_quality", "Quality of the phase, 0 (black) to 1 (white)", (0.0, 1.0), "phasequality"),
    Picture(
        "mask", "Combined magnitude with outlines: mask (orange), voxels with reliable phase (blue)", None, None,
        ("mask", "reliable_mask"), "combined_magnitude",
    ),
    Picture(
        "two_pass_difference", "Reliable voxels alone less all voxels, susceptibility, -0.1 (black) to 0.1 ppm (white)",
        (-0.1, 0.1), "twopassdifference",
    ),
    Picture("total_field", "Total field, -0.5 (black) to 0.5 ppm (white)", (-0.5, 0.5)),
    Picture("field_noise", "Noise of the field, 0 (black) to 0.02 ppm (white)", (0.0, 0.02), "fieldnoise"),
    Picture("local_field", "Local field, -0.1 (black) to 0.1 ppm (white)", (-0.1, 0.1)),
    Picture("chi_paramagnetic", "Susceptibility of paramagnetic sources, 0 (black) to 0.1 ppm (white)", (0.0, 0.1)),
    Picture("chi_diamagnetic", "Susceptibility of diamagnetic sources, 0 (black) to -0.1 ppm (white)", (0.0, -0.1)),
    Picture(
        "closed_form_paramagnetic", "Paramagnetic sources in closed form, to compare, 0 (black) to 0.1 ppm (white)",
        (0.0, 0.1),
    ),
    Picture(
        "closed_form_diamagnetic", "Diamagnetic sources in closed form, to compare, 0 (black) to -0.1 ppm (white)",
        (0.0, -0.1),
    ),
    Picture("orientation_chi", "Susceptibility from all orientations, -0.1 (black) to 0.1 ppm (white)", (-0.1, 0.1)),
    Picture("tensor_mean", "Mean of the susceptibility tensor, -0.1 (black) to 0.1 ppm (white)", (-0.1, 0.1)),
    Picture("tensor_anisotropy", "Anisotropy of susceptibility, 0 (black) to 0.1 ppm (white)", (0.0, 0.1)),
    Picture("r2star", "R2*, 0 (black) to 60 1/s (white)", (0.0, 60.0)),
    Picture("r2star_noise", "Standard deviation of R2*, 0 (black) to 5 1/s (white)", (0.0, 5.0)),
    Picture("t2star", "T2*, 0 (black) to 80 ms (white)", (0.0, 0.08)),
    Picture("t2star_noise", "Standard deviation of T2*, 0 (black) to 10 ms (white)", (0.0, 0.01)),
    Picture("swi", "Susceptibility-weighted image"),
    Picture("minimum_intensity_projection", "Minimum intensity projection"),
)  # fmt: skip

#: Maps whose slices can be leafed through, with the names they have there.
LEAFED = {
    "chi": "Susceptibility", "magnitude": "Magnitude", "wrapped_phase": "Phase", "local_field": "Local field",
}  # fmt: skip

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
    """Mosaics of the maps (PNG), sheets of slices (JPEG), and quality metrics (JSON next to the record)."""

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

    def has(self, name: str) -> bool:
        """Whether there is such a map."""
        if name == "two_pass_difference":
            return self.has("reliable_chi") and self.has("filled_chi")
        return name in self.files or (self.state is not None and name in self.state.arrays)

    def array(self, name: str) -> Any:
        """Array of a map; of the first echo, where it has echoes."""
        if name == "two_pass_difference":
            reliable, filled = self.array("reliable_chi"), self.array("filled_chi")
            return np.where(reliable != 0, reliable - filled, np.float32(0))
        if name in self.files:
            return np.asanyarray(self._image(name).dataobj)
        array = self.state.load(name) if self.state is not None else None
        return array[0] if array is not None and array.ndim == 4 else array

    def upright(self, name: str) -> Any:
        """The map with its axes along those of the body."""
        from qsmxt.reports.figures import upright

        affine = self._image(name).affine if name in self.files or self.state is None else np.array(self.state.affine)
        return upright(self.array(name), affine)

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

    def _picture(self, picture: Picture, mask: Any) -> None:
        from qsmxt.bids.atomic import write_bytes
        from qsmxt.registry.artifacts import ARTIFACTS
        from qsmxt.reports.figures import jpeg, mosaic, png, sheet

        shown = picture.background if picture.background and self.maps.has(picture.background) else picture.name
        volume = self.maps.upright(shown)
        window = picture.window or brightness(volume.array, mask.array)
        contours = [self.maps.upright(name) for name in picture.contours if self.maps.has(name)]
        suffix, desc = "T2starw", picture.desc
        if desc is None:
            artifact = ARTIFACTS[picture.name]
            suffix, desc = artifact.suffix or suffix, artifact.desc
        path = self.target.figure(self.unit, suffix, desc=desc)
        write_bytes(path, png(mosaic(volume, mask, window, contours=contours)))
        self.figures.append({"name": picture.name, "title": picture.title, "file": self._relative(path)})
        if picture.name in LEAFED:
            leafed = sheet(volume, mask, window)
            path = self.target.figure(self.unit, suffix, desc=f"{desc or ''}slices", extension=".jpg")
            write_bytes(path, jpeg(leafed.pixels))
            self.viewer |= leafed.layout()
            entry = {"name": LEAFED[picture.name], "title": picture.title, "file": self._relative(path)}
            self.viewer.setdefault("maps", []).append(entry)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.target.out_dir).as_posix()


def brightness(array: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Window of an image without a unit."""
    inside = array[mask]
    return (0.0, float(np.percentile(inside, 99)) * 1.3 + 1e-12) if inside.size else (0.0, 1.0)
