"""The workflow of the cohort template: every registration is a node, keyed by the name of the scan."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.bids.entities import is_label, parse_name
from qsmxt.config import GroupSettings, Settings
from qsmxt.errors import MissingInputError, ParameterError
from qsmxt.external.templates import Template, find_template
from qsmxt.interfaces import template as nodes
from qsmxt.interfaces.base import quieten_nipype
from qsmxt.interfaces.derivatives import Publish
from qsmxt.interfaces.normative import is_deep
from qsmxt.interfaces.state import digest_files
from qsmxt.interfaces.template_outputs import LinkToStandard, WriteScanInTemplate, WriteTemplate
from qsmxt.interfaces.template_sessions import AverageSessions, PlaceSession
from qsmxt.workflows.cohort import Cohort, Scan, read_table
from qsmxt.workflows.estimate import Estimate
from qsmxt.workflows.execution import execution_config, make_plugin
from qsmxt.workflows.resources import Resources
from qsmxt.workflows.versions import code_digest, version

logger = logging.getLogger("qsmxt")

WORKFLOW = "qsmxt_group"

#: Rounds of the mean of a participant's sessions: to one of them, then to their mean.
SESSION_ROUNDS = 2

#: Fewest scans that make a template.
FEWEST = 2

#: Estimated memory of a registration, GB; a displacement of a 1 mm head has 84 MB, and ANTs holds many.
_MEMORY_GB = 2.0

#: CPU seconds a scan: preparing and linear rounds; and at a voxel of the template's grid for an early round, the last
#: one, and writing. Measured on digital heads at 2 mm with labels of deep nuclei (docs/group.md).
LINEAR, EARLY_ROUND, LAST_ROUND, FINISHING = 18.0, 20e-6, 87e-6, 9e-6

#: Volume of the grid around a head, mm^3.
_AROUND = 6.4e6


def estimate_template(scans: Sequence[Scan], group: GroupSettings) -> Estimate:
    """Time of all steps together, memory of the dearest one; the first map says how large voxels are."""
    from qsmxt.bids.images import read_header

    if len(scans) < FEWEST:
        return Estimate(0.0, 0.0, 1)
    finest = min(np.linalg.norm(read_header(scans[0].maps["chi"]).affine[:3, :3], axis=0))
    size, rounds = group.voxel_size or max(1.0, float(finest)), group.deformable_iterations
    each = max(0, rounds - 1) * EARLY_ROUND + (rounds > 0) * LAST_ROUND + FINISHING
    return Estimate(_MEMORY_GB, len(scans) * (LINEAR + each * _AROUND / size**3), 1)


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
    target = first_target(group, settings)
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
    standard = None
    if group.standard is not None:
        standard = find_template(group.standard, (), settings.segmentation.template_dir)
    workflow = init_template_wf(scans, group, out_dir, resources, standard, target)
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


def first_target(group: GroupSettings, settings: Settings) -> dict[str, str]:
    """Files of the first target, ``target`` and perhaps ``brain``: an image, or that of a template by its name.

    Raises
    ------
    MissingInputError
        If it is neither.
    """
    if group.target is None:
        return {}
    if Path(group.target).is_file():
        return {"target": group.target}
    if not is_label(group.target):
        raise MissingInputError(
            f"--group-target: expected an image or the name of a template, found nothing at {group.target}"
        )
    template = find_template(group.target, (), settings.segmentation.template_dir)
    image = template.magnitude if group.anatomy == "magnitude" else template.t1w
    files = {"target": image or template.t1w or template.magnitude, "brain": template.brain}
    return {key: str(path) for key, path in files.items() if path is not None}


class Progress:
    """nipype's status callback: tells what finished and keeps what failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def __call__(self, node: Any, status: str) -> None:
        if status == "exception":
            self.failed.append(node.name)
        elif status == "end" and not self.failed:
            logger.info("template: %s finished", node.name)


def init_template_wf(
    scans: Sequence[Scan],
    group: GroupSettings,
    out_dir: Path,
    resources: Resources,
    standard: Template | None = None,
    target: Mapping[str, str] | None = None,
) -> Any:
    """The workflow: prepare, sessions, rigid round, affine rounds, deformable rounds, outputs."""
    builder = _Builder(sorted(scans, key=lambda scan: scan.name), group, out_dir, standard, target or {})
    builder.prepare()
    builder.sessions()
    builder.rigid()
    for number in range(group.affine_iterations):
        builder.affine(number + 1)
    for number in range(group.deformable_iterations):
        builder.deformable(number + 1)
    builder.outputs()
    return builder.workflow


def early(schedule: Sequence[int]) -> tuple[int, ...]:
    """Steps of the rounds before the last: the mean is not yet sharp enough for the finest grid to tell anything.

    >>> early((100, 70, 50, 10))
    (100, 70, 25, 0)
    """
    return (*schedule[:2], schedule[2] // 2, 0)


def node_key(name: str) -> str:
    """Name of a scan as part of a node's name."""
    return name.replace("-", "_").replace("+", "plus")


class _Builder:
    """Nodes of the template while they are put together; outputs that are passed on are pairs of node and field."""

    def __init__(
        self,
        scans: Sequence[Scan],
        group: GroupSettings,
        out_dir: Path,
        standard: Template | None,
        target: Mapping[str, str],
    ) -> None:
        from nipype.pipeline import engine as pe

        self.standard, self.target = standard, target
        self.uses_t1w = group.anatomy != "magnitude" and all(scan.t1w is not None for scan in scans)
        self.scans, self.group, self.out_dir, self.code = scans, group, out_dir, code_digest()
        self.deep = [int(index) for index, name in self._labels()["label_names"].items() if is_deep(name)]
        self.workflow = pe.Workflow(name=WORKFLOW)
        self.prepared: dict[str, Any] = {}
        self.people: dict[str, Any] = {}
        self.own_frames: dict[str, Any] = {}
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
        """Channels of every scan; the T1-weighted image guides if all have one."""
        sessions = Counter(scan.subject for scan in self.scans)
        for scan in self.scans:
            labels = str(scan.labels[0]) if scan.labels else ""
            files = [*(str(path) for _, path in sorted(scan.maps.items())), *([labels] if labels else [])]
            given = {
                "name": scan.name, "weight": 1 / sessions[scan.subject],
                "maps": {key: str(path) for key, path in scan.maps.items()}, "labels": labels, "deep": self.deep,
            }  # fmt: skip
            if self.uses_t1w:
                given |= {"t1w": str(scan.t1w), "rigid": str(scan.rigid) if scan.rigid else "", "anatomy": "t1w"}
                files += [str(path) for path in (scan.t1w, scan.rigid) if path is not None]
            given["content"] = digest_files(files)
            self.prepared[scan.name] = self.node(f"prepare_{node_key(scan.name)}", nodes.PrepareScan, parameters=given)

    def sessions(self) -> None:
        """Everybody's scan, or the mean of everybody's sessions at their mean place."""
        for subject in sorted({scan.subject for scan in self.scans}):
            own = {scan.name: self.prepared[scan.name] for scan in self.scans if scan.subject == subject}
            if len(own) == 1:
                self.people |= own
                continue
            name = f"sub-{subject}"
            target = self.node(f"own_target_{node_key(name)}", nodes.ChooseTarget, scans=own)
            for number in range(SESSION_ROUNDS):
                target = self._session_round(name, own, target, number + 1)
            self.people[name] = target

    def _session_round(self, name: str, own: Mapping[str, Any], target: Any, number: int) -> Any:
        """All sessions to the target, then to their mean place; returns their mean there."""
        key = f"own{number}"
        placements = {
            scan: self.node(
                f"{key}_rigid_{node_key(scan)}", nodes.AlignRigidly, memory=1.0, template=target, scan=prepared,
                parameters={"fine": True},
            )
            for scan, prepared in own.items()
        }  # fmt: skip
        size = {"voxel_size": self.group.voxel_size}
        frame = self.node(
            f"{key}_centre_{node_key(name)}", nodes.CentreMaps, scans=own, placements=placements, parameters=size
        )
        brought = {
            scan: self.node(
                f"{key}_bring_{node_key(scan)}", nodes.BringToTemplate, memory=1.0, scan=prepared, frame=frame,
                parameters={"all": True},
            )
            for scan, prepared in own.items()
        }  # fmt: skip
        self.own_frames[name] = frame
        return self.node(
            f"{key}_mean_{node_key(name)}", AverageSessions, memory=1.0, brought=brought, frame=frame,
            parameters={"name": name, "deep": self.deep},
        )  # fmt: skip

    def rigid(self) -> None:
        """Everybody to the target, then to their mean place."""
        given = {**self.target, "content": digest_files(sorted(self.target.values()))}
        target = self.node("target", nodes.ChooseTarget, scans=self.people, parameters=given)
        placements = {
            name: self.node(
                f"rigid_{node_key(name)}", nodes.AlignRigidly, memory=1.0, template=target, scan=prepared
            )
            for name, prepared in self.people.items()
        }  # fmt: skip
        size = {"voxel_size": self.group.voxel_size}
        self.frame = self.node("centre0", nodes.CentreMaps, scans=self.people, placements=placements, parameters=size)
        self._average("rigid")

    def affine(self, number: int) -> None:
        """A round of affine registration to the present mean."""
        placements = {
            name: self.node(
                f"affine{number}_{node_key(name)}", nodes.AlignAffinely, memory=1.0, template=self.mean,
                frame=self.frame, scan=prepared,
            )
            for name, prepared in self.people.items()
        }  # fmt: skip
        self.frame = self.node(
            f"centre{number}", nodes.CentreMaps, scans=self.people, placements=placements, frame=self.frame
        )
        self._average(f"affine{number}")

    def deformable(self, number: int) -> None:
        """A round of deformable registration to the present mean, which then moves to the mean shape."""
        last = number == self.group.deformable_iterations
        given = {"schedule": list(self.group.schedule if last else early(self.group.schedule))}
        self.placements = {
            name: self.node(
                f"deform{number}_{node_key(name)}", nodes.Deform, memory=_MEMORY_GB, template=self.mean,
                frame=self.affine_frame, scan=prepared, parameters=given,
            )
            for name, prepared in self.people.items()
        }  # fmt: skip
        self.frame = self.node(
            f"shape{number}", nodes.BalanceShape, memory=1.0, scans=self.people, placements=self.placements,
            frame=self.affine_frame, template=self.mean,
        )  # fmt: skip
        self._average(f"deform{number}", keep_affine=True)

    def _average(self, name: str, *, keep_affine: bool = False) -> None:
        """Bring everybody to the template and take the mean."""
        if not keep_affine:
            self.affine_frame = self.frame
        self.warped = {
            person: self.node(
                f"bring_{name}_{node_key(person)}", nodes.BringToTemplate, memory=1.0, scan=prepared,
                frame=self.frame, **self._placed(person),
            )
            for person, prepared in self.people.items()
        }  # fmt: skip
        given = {"sharpening": self.group.sharpening}
        inputs: dict[str, Any] = {"brought": self.warped, "frame": self.frame, "parameters": given}
        if self.mean is not None:
            inputs["template"] = self.mean
        self.mean = self.node(f"average_{name}", nodes.AverageScans, memory=1.0, **inputs)
        self.averages.append(self.mean)

    def _placed(self, person: str) -> dict[str, Any]:
        return {"placement": self.placements[person]} if self.placements else {}

    def _frame_of(self, scan: Scan) -> tuple[Any, str]:
        """The frame of a scan, and whom it belongs to; that of a session has its rigid map in it."""
        person = scan.name if scan.name in self.people else f"sub-{scan.subject}"
        if person == scan.name:
            return self.frame, person
        given = {"name": person, "session": scan.name}
        frame = self.node(
            f"place_{node_key(scan.name)}", PlaceSession, frame=self.frame, template=self.own_frames[person],
            parameters=given,
        )  # fmt: skip
        return frame, person

    def outputs(self) -> None:
        """Everything that is written."""
        everything = {}
        for scan in self.scans:
            frame, person = self._frame_of(scan)
            inputs = {"scan": self.prepared[scan.name], "frame": frame, **self._placed(person)}
            brought = self.node(
                f"final_{node_key(scan.name)}", nodes.BringToTemplate, memory=1.0, parameters={"all": True}, **inputs
            )
            write = self.node(
                f"write_{node_key(scan.name)}", WriteScanInTemplate, memory=1.5, template=brought,
                parameters=self._names(scan), **inputs,
            )  # fmt: skip
            everything[scan.name] = brought
            self._publish(write, node_key(scan.name))
        given = {
            "cohort": self.group.cohort,
            "version": version(),
            "record": f"tpl-{self.group.cohort}",
            "sharpening": self.group.sharpening,
            "steps": [],
            **self._labels(),
        }
        write = self.node(
            "write_template", WriteTemplate, memory=2.0, brought=everything, template=self.mean,
            placements={f"{n:03d}": node for n, node in enumerate(self.averages)}, parameters=given,
        )  # fmt: skip
        self._publish(write, "template")
        if self.standard is not None:
            self._link()

    def _link(self) -> None:
        """The transforms to and from a standard space."""
        assert self.standard is not None
        files = {key: str(path) for key, path in vars(self.standard).items() if isinstance(path, Path)}
        given = {
            "cohort": self.group.cohort, "version": version(), "record": f"tpl-{self.group.cohort}_standard",
            "standard": self.standard.name, "images": files, "schedule": list(self.group.schedule),
            "content": digest_files(list(files.values())),
            "anatomy": "t1w" if self.uses_t1w else "magnitude",
        }  # fmt: skip
        self._publish(
            self.node("link_standard", LinkToStandard, memory=_MEMORY_GB, template=self.mean, parameters=given),
            "standard",
        )

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
            "chi": "Chimap", "magnitude": "T2starw", "t1w": "T1w", "r2star": "R2starmap", "mask": "desc-brain_mask",
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
