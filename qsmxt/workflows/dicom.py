"""Maps of a unit as DICOM series, put into the output dataset one whole series at a time."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, TraitedSpec, isdefined, traits

from qsmxt.bids.entities import parse_name
from qsmxt.bids.units import ProcessingUnit
from qsmxt.interfaces.base import Interface

#: Name of the folder of a session that holds the series.
FOLDER = "dicom"


class ExportSeriesInputSpec(BaseInterfaceInputSpec):
    """Maps and where they belong."""

    folder = traits.Str(mandatory=True, desc="folder laid out like the output dataset")
    source = traits.Str(desc="DICOM file of the study that the series join")
    out_dir = traits.Str(mandatory=True, desc="root of the output dataset")


class ExportSeriesOutputSpec(TraitedSpec):
    """The series."""

    folders = traits.List(traits.Str(), desc="folders of the series, in the output dataset")


class ExportSeries(Interface):
    """Write every map on the grid of the acquisition as a DICOM series.

    Like publishing it always runs; a series that is there already is left alone.
    """

    input_spec = ExportSeriesInputSpec
    output_spec = ExportSeriesOutputSpec
    _always_run = True

    def execute(self, folder: str) -> None:
        """Write the series of all maps."""
        from qsmxt.convert.export import export_dicom

        root, out_dir = Path(self.inputs.folder), Path(self.inputs.out_dir)
        source = self.inputs.source if isdefined(self.inputs.source) else None
        written = []
        for image in exported(root):
            target = out_dir / image.relative_to(root).parents[1] / FOLDER / image.name.partition(".")[0]
            export_dicom(image, None, target, source, overwrite=True)
            written.append(str(target))
        self._results["folders"] = written


def exported(folder: Path) -> list[Path]:
    """The maps below a folder that become series: all on the grid of the acquisition but masks."""
    found = []
    for path in sorted(folder.rglob("anat/*.nii.gz")):
        entities, suffix, _ = parse_name(path.name)
        if suffix != "mask" and "space" not in entities:
            found.append(path)
    return found


class SourceFinder:
    """Finds a DICOM file of the study of a unit; the folder is read once, when the first unit asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def studies(self) -> Any:
        """All studies in the folder."""
        from qsmxt.convert.source_study import find_studies

        return find_studies(self.folder)

    def __call__(self, unit: ProcessingUnit) -> Path:
        """The file.

        Raises
        ------
        InputError
            If the study is not there, or it is not certain which it is.
        """
        from qsmxt.convert.source_study import choose_study

        facts = [echo.metadata for echo in unit.echoes]
        return choose_study(self.studies, facts, unit.subject, unit.session).path


def add_dicom(builder: Any, source: Path | None) -> None:
    """Nodes ``dicom_<output>``, one after everything that writes maps.

    ``builder`` puts the unit's workflow together (:mod:`qsmxt.workflows.unit`).
    """
    writers = {output: builder.nodes[f"write_{output}"] for output in builder.plan.outputs()}
    if "segmentation" in builder.nodes:
        writers["segmentation"] = builder.nodes["segmentation"]
    for output, writer in writers.items():
        export = ExportSeries(out_dir=str(builder.context.out_dir))
        if source is not None:
            export.inputs.source = str(source)
        node = builder.node(f"dicom_{output}", export, "write")
        builder.workflow.connect(writer, "folder", node, "folder")
