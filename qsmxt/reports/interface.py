"""The node that draws a unit's figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

#: What is drawn where it was made: artifact, window (``None``: from the 99th percentile), title.
PICTURES: tuple[tuple[str, tuple[float, float] | None, str], ...] = (
    ("chi", (-0.1, 0.1), "Susceptibility, -0.1 (black) to 0.1 ppm (white)"),
    ("mask", None, "Combined magnitude with the outline of the mask"),
    ("total_field", (-0.5, 0.5), "Total field, -0.5 (black) to 0.5 ppm (white)"),
    ("local_field", (-0.1, 0.1), "Local field, -0.1 (black) to 0.1 ppm (white)"),
    ("chi_paramagnetic", (0.0, 0.1), "Susceptibility of paramagnetic sources, 0 (black) to 0.1 ppm (white)"),
    ("chi_diamagnetic", (-0.1, 0.0), "Susceptibility of diamagnetic sources, -0.1 (black) to 0 ppm (white)"),
    ("r2star", (0.0, 60.0), "R2*, 0 (black) to 60 1/s (white)"),
    ("t2star", (0.0, 0.08), "T2*, 0 (black) to 80 ms (white)"),
    ("swi", None, "Susceptibility-weighted image"),
    ("minimum_intensity_projection", None, "Minimum intensity projection"),
)


class DrawFiguresInputSpec(BaseInterfaceInputSpec):
    """Finished derivatives of a unit."""

    unit = traits.Str(mandatory=True, desc="processing unit (JSON)")
    derivatives = traits.Str(mandatory=True, desc="folder laid out like the output dataset")
    record = traits.Str(mandatory=True, desc="record of the run")
    fingerprint = traits.Str(mandatory=True, desc="digest of the derivatives")
    code = traits.Str(mandatory=True, desc="version and digest of the code")


class DrawFiguresOutputSpec(TraitedSpec):
    """A folder laid out like the output dataset."""

    folder = traits.Str(desc="folder laid out like the output dataset")


class DrawFigures(SimpleInterface):
    """Mosaics of the maps, as PNG."""

    input_spec = DrawFiguresInputSpec
    output_spec = DrawFiguresOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from qsmxt.bids.atomic import write_bytes
        from qsmxt.bids.outputs import Derivatives
        from qsmxt.bids.units import ProcessingUnit
        from qsmxt.registry.artifacts import ARTIFACTS
        from qsmxt.reports.figures import png

        unit = ProcessingUnit.from_dict(json.loads(self.inputs.unit))
        record = json.loads(Path(self.inputs.record).read_text(encoding="utf-8"))
        target = Derivatives(Path(runtime.cwd) / "derivatives")
        maps = _Maps(Path(self.inputs.derivatives), record["files"])
        for name, window, _ in PICTURES:
            if name in record["files"]:
                artifact = ARTIFACTS[name]
                path = target.figure(unit, artifact.suffix or name, desc=artifact.desc)
                write_bytes(path, png(maps.draw(name, window)))
        target.out_dir.mkdir(exist_ok=True)
        self._results["folder"] = str(target.out_dir)
        return runtime


class _Maps:
    """The maps of a record, upright, loaded when needed."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder, self.files = folder, files

    def load(self, name: str) -> Any:
        import nibabel

        from qsmxt.reports.figures import upright

        image = nibabel.load(self.folder / self.files[name])
        return upright(np.asanyarray(image.dataobj), image.affine)  # type: ignore[attr-defined]

    def draw(self, name: str, window: tuple[float, float] | None) -> np.ndarray:
        from qsmxt.reports.figures import Upright, mosaic

        shown = self.load("combined_magnitude" if name == "mask" and "combined_magnitude" in self.files else name)
        if "mask" in self.files:
            mask = self.load("mask")
        else:
            mask = Upright(np.ones(shown.array.shape, dtype=bool), shown.voxel_size)
        if window is None:
            inside = shown.array[mask.array > 0]
            window = (0.0, float(np.percentile(inside, 99)) * 1.3 + 1e-12) if inside.size else (0.0, 1.0)
        return mosaic(shown, mask, window, contour=mask if name == "mask" else None)
