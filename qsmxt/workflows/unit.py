"""The nipype workflow of one unit: import, groups of methods, derivatives, figures.

Few, fat nodes: nipype spends a tenth of a second and more on each. Everything that determines a result is an input
of its node.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsmxt.bids.units import ProcessingUnit
from qsmxt.config import Settings
from qsmxt.interfaces.acquisition import Fingerprint, LoadAcquisition
from qsmxt.interfaces.derivatives import Publish, WriteDerivatives
from qsmxt.interfaces.methods import BuildMask, RunMethods
from qsmxt.reports.interface import DrawFigures
from qsmxt.workflows.dicom import add_dicom
from qsmxt.workflows.estimate import Estimate, Size, estimate_plan
from qsmxt.workflows.plan import LOADING, MASK_STEP, Group, Plan

if TYPE_CHECKING:
    from qsmxt.workflows.segmentation import SegmentationPlan

#: Names of the inputs that take the states a group continues.
_STATE_INPUTS = ("state", "second", "third")


@dataclass(frozen=True)
class Context:
    """What all units of a run share; a process in which nodes run holds ``held_gb`` besides what they need."""

    bids_dir: Path
    out_dir: Path
    version: str
    code: str
    threads: int = 1
    work_dir: Path = Path("work")
    held_gb: float = 0.0


def unit_node_name(unit: ProcessingUnit) -> str:
    """Name of the unit's workflow; nipype allows no plus sign."""
    return unit.name.replace("+", "plus")


def init_unit_wf(
    plan: Plan,
    settings: Settings,
    size: Size,
    context: Context,
    *,
    segmentation: SegmentationPlan | None = None,
    source: Path | None = None,
    name: str | None = None,
) -> Any:
    """The workflow of one unit; ``source`` is a DICOM file of its study.

    Nodes: ``fingerprint`` (always runs), ``load``, the groups of the plan, and for every output ``write_<output>``,
    ``publish_<output>``, ``figures_<output>`` and ``publish_figures_<output>``; on request ``dicom_<output>``.
    """
    from nipype.pipeline import engine as pe

    builder = _Builder(plan, settings, context, pe.Workflow(name=name or unit_node_name(plan.unit)))
    saved = [artifact for output in plan.outputs() for artifact in plan.saved(output)]
    builder.estimates = estimate_plan(plan, size, saved)
    builder.add_import()
    for group in plan.groups:
        builder.add_group(group)
    for output in plan.outputs():
        builder.add_output(output)
        builder.add_figures(output)
    if segmentation is not None:
        from qsmxt.workflows.segmentation import add_segmentation, estimate_segmentation

        builder.estimates |= estimate_segmentation(segmentation, size)
        add_segmentation(builder, segmentation)
    if settings.outputs.export_dicom:
        add_dicom(builder, source)
    return builder.workflow


class _Builder:
    """Nodes of one unit while they are put together."""

    def __init__(self, plan: Plan, settings: Settings, context: Context, workflow: Any) -> None:
        self.plan, self.settings, self.context, self.workflow = plan, settings, context, workflow
        self.unit = json.dumps(plan.unit.to_dict(), sort_keys=True)
        self.estimates: dict[str, Estimate] = {}
        self.nodes: dict[str, Any] = {}

    def node(self, name: str, interface: Any, estimate: str | None = None) -> Any:
        """A node with its resources."""
        from nipype.pipeline import engine as pe

        needs = self.estimates.get(estimate or name, Estimate(0.2, 0.1, 1))
        threads = max(1, min(needs.threads, self.context.threads))
        node = pe.Node(interface, name=name, mem_gb=round(needs.mem_gb + self.context.held_gb, 3), n_procs=threads)
        node.cpu_seconds = needs.cpu_seconds
        self.nodes[name] = node
        self.workflow.add_nodes([node])
        return node

    def add_import(self) -> None:
        """Digest of the files, then their arrays."""
        masks = json.dumps({name: str(path) for name, path in self.plan.masks.items()}, sort_keys=True)
        spin_echo = "{}" if self.plan.spin_echo is None else self.plan.spin_echo.to_json()
        fingerprint = self.node("fingerprint", Fingerprint(unit=self.unit, masks=masks, spin_echo=spin_echo))
        acquisition = self.settings.acquisition
        reading = {"phase_sign": acquisition.phase_sign, "phase_range": acquisition.phase_range}
        load = self.node(
            LOADING,
            LoadAcquisition(
                unit=self.unit,
                reading=json.dumps(reading),
                masks=masks,
                spin_echo=spin_echo,
                code=self.context.code,
            ),
        )
        self.workflow.connect([(fingerprint, load, [("fingerprint", "fingerprint"), ("digests", "digests")])])

    def add_group(self, group: Group) -> None:
        """One node for a group of methods."""
        kind = BuildMask if [step.name for step in group.steps] == [MASK_STEP] else RunMethods
        steps = json.dumps({"steps": [step.to_dict() for step in group.steps]}, sort_keys=True)
        node = self.node(group.name, kind(plan=steps, code=self.context.code))
        for source, entry in zip(group.after, _STATE_INPUTS, strict=False):
            self.workflow.connect(self.nodes[source], "state", node, entry)

    def add_output(self, output: str) -> None:
        """Derivatives of one output."""
        last = [group for group in self.plan.groups if group.output == output][-1]
        write = self.node(
            f"write_{output}",
            WriteDerivatives(
                unit=self.unit,
                bids_dir=str(self.context.bids_dir),
                artifacts=list(self.plan.saved(output)),
                label=output,
                version=self.context.version,
                code=self.context.code,
            ),
            "write",
        )
        kept = sorted(str(path) for path in self.plan.masks.values())
        publish = self.node(f"publish_{output}", Publish(out_dir=str(self.context.out_dir), kept=kept))
        self.workflow.connect(self.nodes[last.name], "state", write, "state")
        self.workflow.connect([(write, publish, [("folder", "folder"), ("record", "record")])])

    def add_figures(self, output: str) -> None:
        """Figures of one output."""
        figures = self.node(f"figures_{output}", DrawFigures(unit=self.unit, code=self.context.code), "figures")
        publish = self.node(f"publish_figures_{output}", Publish(out_dir=str(self.context.out_dir)))
        write = self.nodes[f"write_{output}"]
        self.workflow.connect(
            [(write, figures, [("folder", "derivatives"), ("record", "record"), ("fingerprint", "fingerprint")])]
        )
        last = [group for group in self.plan.groups if group.output == output][-1]
        self.workflow.connect(self.nodes[last.name], "state", figures, "state")
        self.workflow.connect(figures, "folder", publish, "folder")
