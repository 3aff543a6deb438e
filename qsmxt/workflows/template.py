"""The workflow of the cohort template: every registration is a node, keyed by the name of the scan."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsmxt.bids.entities import is_label, parse_name
from qsmxt.config import GroupSettings, Settings
from qsmxt.errors import MissingInputError, ParameterError
from qsmxt.interfaces import template as nodes
from qsmxt.interfaces.base import quieten_nipype
from qsmxt.interfaces.derivatives import Publish
from qsmxt.interfaces.state import digest_files
from qsmxt.interfaces.template_outputs import WriteScanInTemplate, WriteTemplate
from qsmxt.workflows.cohort import Cohort, Scan, read_table
from qsmxt.workflows.execution import execution_config, make_plugin
from qsmxt.workflows.resources import Resources
from qsmxt.workflows.versions import code_digest, version

logger = logging.getLogger("qsmxt")

WORKFLOW = "qsmxt_group"

#: Fewest scans that make a template.
FEWEST = 2

#: Estimated memory of a registration, GB; a displacement of a 1 mm head has 84 MB, and ANTs holds many.
_MEMORY_GB = 2.0


def choose_scans(cohort: Cohort) -> tuple[list[Scan], dict[str, str]]:
    """One scan of every session that has what a template needs, and why the others are left out.

    Of several scans of a session the one counts whose acquisition is most frequent in the cohort, then the first.
    """
    left_out: dict[str, str] = {}
    sessions: dict[tuple[str, str], list[Scan]] = {}
    kinds = Counter(_kind(scan) for scan in cohort.scans)
    for scan in cohort.scans:
        lacking = [key for key in ("chi", "combined_magnitude") if key not in scan.maps]
        if lacking:
            left_out[scan.name] = f"has no {' and no '.join(lacking)}"
        else:
            sessions.setdefault((scan.subject, scan.entities.get("session", "")), []).append(scan)
    chosen = []
    for scans in sessions.values():
        best = min(scans, key=lambda scan: (-kinds[_kind(scan)], scan.name))
        chosen.append(best)
        left_out |= {scan.name: f"{best.name} stands for the session" for scan in scans if scan is not best}
    return sorted(chosen, key=lambda scan: scan.name), left_out


def _kind(scan: Scan) -> tuple[tuple[str, str], ...]:
    return tuple((k, v) for k, v in sorted(scan.entities.items()) if k not in ("subject", "session"))


def make_template(
    out_dir: Path, cohort: Cohort, settings: Settings, work_dir: Path, resources: Resources
) -> dict[str, Any]:
    """Run the workflow.

    Returns
    -------
    made
        ``members`` (names of scans), ``left_out`` (name -> reason), ``failed`` (empty, or what went wrong).
    """
    group = settings.group
    if not is_label(group.cohort):
        raise ParameterError(f"--group-cohort: expected letters and digits, found {group.cohort!r}")
    if group.target is not None and not Path(group.target).is_file():
        raise MissingInputError(f"--group-target: expected an image, found nothing at {group.target}")
    scans, left_out = choose_scans(cohort)
    for name, reason in sorted(left_out.items()):
        logger.warning("template: %s is left out: %s", name, reason)
    made: dict[str, Any] = {"members": [scan.name for scan in scans], "left_out": left_out, "failed": ""}
    if len(scans) < FEWEST:
        logger.warning(
            "template: expected at least %d scans with susceptibility and magnitude, found %d", FEWEST, len(scans)
        )
        return {**made, "members": []}
    quieten_nipype(logger.getEffectiveLevel())
    workflow = init_template_wf(scans, group, out_dir, resources)
    workflow.base_dir = str(work_dir)
    workflow.config["execution"] = {**execution_config(settings), "crashdump_dir": str(out_dir / "logs" / "group")}
    progress = Progress()
    try:
        workflow.run(plugin=make_plugin(resources, progress))  # type: ignore[arg-type]
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        made["failed"] = f"{', '.join(progress.failed)} failed ({lines[-1]})" if progress.failed else lines[-1]
        logger.error("template: %s; crash files are in %s", made["failed"], out_dir / "logs" / "group")
    return made


class Progress:
    """nipype's status callback: tells what finished and keeps what failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def __call__(self, node: Any, status: str) -> None:
        if status == "exception":
            self.failed.append(node.name)
        elif status == "end" and not self.failed:
            logger.info("template: %s finished", node.name)


def init_template_wf(scans: Sequence[Scan], group: GroupSettings, out_dir: Path, resources: Resources) -> Any:
    """The workflow: prepare, rigid round, affine rounds, deformable rounds, outputs."""
    builder = _Builder(sorted(scans, key=lambda scan: scan.name), group, out_dir)
    builder.prepare()
    builder.rigid()
    for number in range(group.affine_iterations):
        builder.affine(number + 1)
    for number in range(group.deformable_iterations):
        builder.deformable(number + 1)
    builder.outputs()
    return builder.workflow


def node_key(scan: Scan) -> str:
    """Name of a scan as part of a node's name."""
    return scan.name.replace("-", "_").replace("+", "plus")


class _Builder:
    """Nodes of the template while they are put together; outputs that are passed on are pairs of node and field."""

    def __init__(self, scans: Sequence[Scan], group: GroupSettings, out_dir: Path) -> None:
        from nipype.pipeline import engine as pe

        self.scans, self.group, self.out_dir, self.code = scans, group, out_dir, code_digest()
        self.workflow = pe.Workflow(name=WORKFLOW)
        self.prepared: dict[str, Any] = {}
        self.placements: dict[str, Any] = {}
        self.warped: dict[str, Any] = {}
        self.frame: Any = None
        self.affine_frame: Any = None
        self.mean: Any = None
        self.averages: list[Any] = []

    def node(self, name: str, kind: type, *, memory: float = 0.5, **inputs: Any) -> Any:
        """A node; inputs are nodes (their ``state``), dictionaries of nodes (gathered by name), or values."""
        from nipype.pipeline import engine as pe

        values = {k: json.dumps(v, sort_keys=True) for k, v in inputs.items() if k == "parameters"}
        node = pe.Node(kind(code=self.code, **values), name=name, mem_gb=memory, n_procs=1)
        self.workflow.add_nodes([node])
        for entry, source in inputs.items():
            if isinstance(source, Mapping) and entry != "parameters":
                self.workflow.connect(self._gathered(f"{name}_{entry}", source), "out", node, entry)
            elif entry != "parameters":
                self.workflow.connect(source, "state", node, entry)
        return node

    def _gathered(self, name: str, sources: Mapping[str, Any]) -> Any:
        from nipype.interfaces.utility import Merge
        from nipype.pipeline import engine as pe

        merge = pe.Node(Merge(len(sources)), name=f"{name}_all", run_without_submitting=True)
        for number, key in enumerate(sorted(sources)):
            self.workflow.connect(sources[key], "state", merge, f"in{number + 1}")
        return merge

    def prepare(self) -> None:
        """Channels of every scan."""
        sessions = Counter(scan.subject for scan in self.scans)
        for scan in self.scans:
            labels = str(scan.labels[0]) if scan.labels else ""
            files = [*(str(path) for _, path in sorted(scan.maps.items())), *([labels] if labels else [])]
            given = {
                "name": scan.name, "weight": 1 / sessions[scan.subject], "content": digest_files(files),
                "maps": {key: str(path) for key, path in scan.maps.items()}, "labels": labels,
            }  # fmt: skip
            self.prepared[scan.name] = self.node(f"prepare_{node_key(scan)}", nodes.PrepareScan, parameters=given)

    def rigid(self) -> None:
        """All scans to the target, then to their mean place."""
        given: dict[str, Any] = {"target": self.group.target}
        if self.group.target:
            given["content"] = digest_files([self.group.target])
        target = self.node("target", nodes.ChooseTarget, scans=self.prepared, parameters=given)
        placements = {
            scan.name: self.node(
                f"rigid_{node_key(scan)}",
                nodes.AlignRigidly,
                memory=1.0,
                template=target,
                scan=self.prepared[scan.name],
            )
            for scan in self.scans
        }
        size = {"voxel_size": self.group.voxel_size}
        self.frame = self.node("centre0", nodes.CentreMaps, scans=self.prepared, placements=placements, parameters=size)
        self._average("rigid")

    def affine(self, number: int) -> None:
        """A round of affine registration to the present mean."""
        placements = {
            scan.name: self.node(
                f"affine{number}_{node_key(scan)}", nodes.AlignAffinely, memory=1.0, template=self.mean,
                frame=self.frame, scan=self.prepared[scan.name],
            )
            for scan in self.scans
        }  # fmt: skip
        self.frame = self.node(
            f"centre{number}", nodes.CentreMaps, scans=self.prepared, placements=placements, frame=self.frame
        )
        self._average(f"affine{number}")

    def deformable(self, number: int) -> None:
        """A round of deformable registration to the present mean, which then moves to the mean shape."""
        given = {"schedule": list(self.group.schedule)}
        self.placements = {
            scan.name: self.node(
                f"deform{number}_{node_key(scan)}", nodes.Deform, memory=_MEMORY_GB, template=self.mean,
                frame=self.affine_frame, scan=self.prepared[scan.name], parameters=given,
            )
            for scan in self.scans
        }  # fmt: skip
        self.frame = self.node(
            f"shape{number}", nodes.BalanceShape, memory=1.0, scans=self.prepared, placements=self.placements,
            frame=self.affine_frame, template=self.mean,
        )  # fmt: skip
        self._average(f"deform{number}", keep_affine=True)

    def _average(self, name: str, *, keep_affine: bool = False) -> None:
        """Bring all scans to the template and take the mean."""
        if not keep_affine:
            self.affine_frame = self.frame
        self.warped = {scan.name: self._bring(f"bring_{name}", scan, everything=False) for scan in self.scans}
        given = {"sharpening": self.group.sharpening}
        inputs: dict[str, Any] = {"brought": self.warped, "frame": self.frame, "parameters": given}
        if self.mean is not None:
            inputs["template"] = self.mean
        self.mean = self.node(f"average_{name}", nodes.AverageScans, memory=1.0, **inputs)
        self.averages.append(self.mean)

    def _bring(self, name: str, scan: Scan, *, everything: bool) -> Any:
        inputs = {"placement": self.placements[scan.name]} if self.placements else {}
        return self.node(
            f"{name}_{node_key(scan)}", nodes.BringToTemplate, memory=1.0, scan=self.prepared[scan.name],
            frame=self.frame, parameters={"all": everything}, **inputs,
        )  # fmt: skip

    def outputs(self) -> None:
        """Everything that is written."""
        everything = {scan.name: self._bring("final", scan, everything=True) for scan in self.scans}
        for scan in self.scans:
            inputs = {"placement": self.placements[scan.name]} if self.placements else {}
            write = self.node(
                f"write_{node_key(scan)}", WriteScanInTemplate, memory=1.5, scan=self.prepared[scan.name],
                frame=self.frame, template=everything[scan.name], parameters=self._names(scan), **inputs,
            )  # fmt: skip
            self._publish(write, node_key(scan))
        given = {"cohort": self.group.cohort, "version": version(), "record": "template", "steps": [], **self._labels()}
        write = self.node(
            "write_template", WriteTemplate, memory=2.0, brought=everything, template=self.mean,
            placements={f"{n:03d}": node for n, node in enumerate(self.averages)}, parameters=given,
        )  # fmt: skip
        self._publish(write, "template")

    def _publish(self, write: Any, name: str) -> None:
        from nipype.pipeline import engine as pe

        publish = pe.Node(Publish(out_dir=str(self.out_dir)), name=f"publish_{name}")
        self.workflow.connect([(write, publish, [("folder", "folder"), ("record", "record")])])

    def _names(self, scan: Scan) -> dict[str, Any]:
        """Where the maps and transforms of a scan go."""
        cohort = self.group.cohort
        folder = Path(f"sub-{scan.subject}")
        if "session" in scan.entities:
            folder /= f"ses-{scan.entities['session']}"
        stem = (folder / "anat" / scan.name).as_posix()
        seg = self._labels()["segmentation"]
        names = {
            "chi": "Chimap", "magnitude": "T2starw", "r2star": "R2starmap", "mask": "desc-brain_mask",
            "labels": f"seg-{seg or 'labels'}_dseg",
        }  # fmt: skip
        sources = [f"bids::{path.relative_to(self.out_dir).as_posix()}" for _, path in sorted(scan.maps.items())]
        return {
            "record": f"{scan.name}_space-{cohort}", "version": version(), "sources": sources,
            "reference": f"bids::tpl-{cohort}/anat/tpl-{cohort}_desc-mean_T2starw.nii.gz",
            "names": {key: f"{stem}_space-{cohort}_{end}.nii.gz" for key, end in names.items()},
            "transforms": {
                "to": f"{stem}_from-orig_to-{cohort}_mode-image_xfm.h5",
                "from": f"{stem}_from-{cohort}_to-orig_mode-image_xfm.h5",
            },
        }  # fmt: skip

    def _labels(self) -> dict[str, Any]:
        """Name of the segmentation and names of its labels, from the first scan that has one."""
        for scan in self.scans:
            for path in scan.labels[:1]:
                entities, _, _ = parse_name(path.name)
                seg = entities.get("segmentation") or entities.get("atlas") or ""
                stem = path.name.partition(".")[0]
                tables = [path.with_name(f"{stem}.tsv"), *sorted(self.out_dir.glob(f"*{seg}_dseg.tsv"))]
                for table in (table for table in tables if table.is_file()):
                    names = {row["index"]: row["name"] for row in read_table(table) if "index" in row and "name" in row}
                    return {"segmentation": seg, "label_names": names}
                return {"segmentation": seg, "label_names": {}}
        return {"segmentation": "", "label_names": {}}
