"""What segmentation of a unit needs, found before anything is computed, and its nodes.

Labels come from an atlas in the space of a template, from a program that segments the T1-weighted image, or from
derivatives that exist. The T1-weighted image of a unit is the first of those of its session in the order of their
names, else the first of another session; there is none in a dataset of gradient echoes alone, which then is registered
to the template itself.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsmxt.bids.entities import parse_name
from qsmxt.bids.outputs import bids_uri, derivative_entities
from qsmxt.bids.units import ProcessingUnit
from qsmxt.config import SegmentationSettings
from qsmxt.errors import MissingInputError, ParameterError
from qsmxt.external.templates import Template, find_template, split_atlas
from qsmxt.interfaces.derivatives import Publish
from qsmxt.interfaces.regions import FREESURFER
from qsmxt.interfaces.segmentation import FOCUS_VOXELS, AnatomyFingerprint, RegisterAnatomy, SegmentRegions
from qsmxt.workflows.estimate import Estimate, Size

#: Methods that are programs, one module of :mod:`qsmxt.external` each.
ENGINES = ("synthseg", "fastsurfer", "freesurfer")

#: Grid of the refinement around the deep nuclei (mm), iterations at 16, 8, 4 and 2 mm of the whole brain, and of the
#: refinement at four times, twice and once its grid.
SCHEDULES: dict[str, tuple[float, tuple[int, ...], tuple[int, ...]]] = {
    "default": (1.0, (100, 70, 50, 10), (50, 40, 5)),
    "fast": (2.0, (100, 70, 20, 0), (50, 50, 20)),
}

#: Spaces other than those of templates.
NATIVE_SPACES = ("T1w", "anat")

#: Name of the template of the digital head, which is made when it is asked for.
DEMO_TEMPLATE = "QSMxTHead"

#: CPU seconds of the rigid registration, and of that of the whole brain; of a step of the refinement at a voxel; and
#: its box, mm^3. Measured on digital heads at 1 and 2 mm.
RIGID, WHOLE, STEP, BOX = 16.0, 45.0, 13e-6, 8e5

#: CPU seconds of carrying over and measuring, per megavoxel.
MEASURING = 6.0

#: Memory of registration and of measuring, GB.
REGISTERING_GB, MEASURING_GB = 1.5, 1.0


@dataclass(frozen=True)
class SegmentationPlan:
    """All that the nodes must know, as plain values, and the files that count."""

    values: dict[str, Any]
    files: tuple[Path, ...]

    def to_json(self) -> str:
        """Text for the nodes."""
        return json.dumps(self.values, sort_keys=True)


def plan_segmentation(
    unit: ProcessingUnit,
    settings: SegmentationSettings,
    bids_dir: Path,
    derivatives: Mapping[str, Path],
    work_dir: Path,
) -> SegmentationPlan:
    """Everything that segmentation of ``unit`` needs.

    Raises
    ------
    MissingInputError, MissingProgramError, ParameterError
        If something is missing; the message says how to get it.
    """
    t1w, notes = choose_t1w(unit)
    method = settings.seg_method
    template = None
    if method == "atlas" or needs_template(settings):
        template = templates(settings, work_dir)
    engine = method if method in ENGINES else None
    if engine is not None:
        importlib.import_module(f"qsmxt.external.{engine}").check()
        if t1w is None:
            raise MissingInputError(
                f"{unit.name}: {engine} needs a T1-weighted image, found none; use --seg-method atlas"
            )
    precomputed = existing(unit, derivatives, "dseg") if method == "precomputed" else []
    if method == "precomputed" and not precomputed:
        raise MissingInputError(
            f"{unit.name}: expected a dseg image of sub-{unit.subject} in --derivatives, found none in "
            f"{', '.join(str(path) for path in derivatives.values()) or 'no folder'}"
        )
    rois = existing(unit, {"": bids_dir, **derivatives}, "roi")
    size, whole, fine = SCHEDULES["fast" if settings.seg_fast else "default"]
    if t1w is None:
        notes.append(f"{unit.name}: no T1-weighted image; the template is registered to the gradient echo itself")
        precomputed = [item for item in precomputed if item["space"] != "T1w"]
    values: dict[str, Any] = {
        "method": method, "engine": engine, "channels": settings.seg_channels, "resolution": size,
        "whole": list(whole), "fine": list(fine), "t1w": None if t1w is None else str(t1w),
        "t1w_uri": None if t1w is None else bids_uri(t1w, bids_dir), "spaces": list(settings.output_spaces),
        "template": None if template is None else _images(template), "stripped": False,
        "atlases": [] if template is None or method != "atlas" else _atlases(template),
        "precomputed": precomputed, "rois": rois, "maps": user_maps(unit, derivatives), "notes": notes,
    }  # fmt: skip
    if template is not None:
        values["stripped"] = is_stripped(template)
    files = [*([t1w] if t1w else []), *(template.files() if template else [])]
    files += [Path(item[key]) for item in (*precomputed, *rois) for key in ("labels", "table") if item[key]]
    files += [Path(item["path"]) for item in values["maps"]]
    return SegmentationPlan(values, tuple(files))


def estimate_segmentation(plan: SegmentationPlan, size: Size) -> dict[str, Estimate]:
    """Time and memory of the nodes of :func:`add_segmentation`, but not of programs that segment by themselves.

    Runs that share a T1-weighted image take less: the whole brain is registered once.
    """
    values = plan.values
    seconds = RIGID if values["t1w"] is not None else 0.0
    if values["template"] is not None:
        voxels = min(BOX / values["resolution"] ** 3, FOCUS_VOXELS)
        steps = sum(count / 8**level for level, count in enumerate(reversed(values["fine"])))
        seconds += WHOLE + STEP * voxels * steps
    return {
        "register_anatomy": Estimate(REGISTERING_GB if seconds else 0.2, seconds or 0.1, 1),
        "segmentation": Estimate(MEASURING_GB, MEASURING * size.voxels / 1e6, 1),
    }


def choose_t1w(unit: ProcessingUnit) -> tuple[Path | None, list[str]]:
    """The T1-weighted image to use, and what a reader should know about the choice."""
    if not unit.t1w:
        return None, []
    chosen, notes = unit.t1w[0], []
    session = parse_name(chosen.name)[0].get("session")
    same = [path for path in unit.t1w if parse_name(path.name)[0].get("session") == session]
    if len(same) > 1:
        notes.append(f"{unit.name}: {len(same)} T1-weighted images; {chosen.name} is used, the first by its name")
    if session != unit.session:
        notes.append(f"{unit.name}: no T1-weighted image in this session; {chosen.name} of another one is used")
    return chosen, notes


def needs_template(settings: SegmentationSettings) -> bool:
    """Whether maps are wanted in the space of a template."""
    return any(space not in NATIVE_SPACES for space in settings.output_spaces)


@functools.cache
def templates(settings: SegmentationSettings, work_dir: Path) -> Template:
    """The template with its atlases; one, because a unit is registered once."""
    pairs = [split_atlas(text) for text in settings.atlas]
    spaces = [space.partition(":")[0] for space in settings.output_spaces if space not in NATIVE_SPACES]
    names = list(dict.fromkeys([name for name, _ in pairs if name] + spaces))
    if len(names) > 1:
        raise ParameterError(
            f"--atlas, --output-spaces: expected one template, found {', '.join(names)}; run once for each"
        )
    name = names[0] if names else None
    folder = settings.template_dir and str(Path(settings.template_dir).absolute())
    if folder is None and name == DEMO_TEMPLATE:
        folder = str(demo_template(work_dir))
    return find_template(name, [atlas for _, atlas in pairs], folder)


def demo_template(work_dir: Path) -> Path:
    """Folder of the template of the digital head, made in the work folder unless it is there."""
    from qsmxt.phantom.template import template

    home = work_dir / "templates"
    if not (home / f"tpl-{DEMO_TEMPLATE}" / "template_description.json").exists():
        template(home)
    return home


@functools.cache
def is_stripped(template: Template) -> bool:
    """Whether the anatomical image of the template shows a brain without its head."""
    import numpy as np

    from qsmxt.interfaces.registration import read_volume

    path = template.t1w or template.magnitude
    if path is None:
        return False
    sidecar = path.with_name(path.name.partition(".")[0] + ".json")
    try:
        stated = json.loads(sidecar.read_text(encoding="utf-8")).get("SkullStripped")
    except (OSError, ValueError, AttributeError):
        stated = None
    if isinstance(stated, bool):
        return stated
    array = read_volume(path).array
    return float(np.mean(array == 0)) > 0.4


def _images(template: Template) -> dict[str, Any]:
    images = {key: getattr(template, key) for key in ("t1w", "magnitude", "chi", "brain")}
    return {"name": template.name} | {key: None if path is None else str(path) for key, path in images.items()}


def _atlases(template: Template) -> list[dict[str, Any]]:
    return [
        {"name": atlas.name, "labels": str(atlas.labels), "table": str(table) if table else None}
        for atlas in template.atlases
        for table in [atlas.table or (FREESURFER if of_freesurfer(atlas.name) else None)]
    ]


def existing(unit: ProcessingUnit, folders: Mapping[str, Path], suffix: str) -> list[dict[str, Any]]:
    """Label images of the subject (and session) that exist: ``dseg``, or ``label-X_roi`` and ``label-X_mask``.

    Without ``space-`` they are on the grid of the gradient echo; ``space-T1w`` and ``space-orig`` are in the space of
    the T1-weighted image; those of other spaces are left out, as are those of another acquisition or run.
    """
    found: list[dict[str, Any]] = []
    own = derivative_entities(unit)
    for folder in folders.values():
        root = folder / f"sub-{unit.subject}"
        for path in sorted(root.rglob(f"*_{suffix}.nii*")) if root.is_dir() else []:
            entities, _, extension = parse_name(path.name)
            if extension not in (".nii", ".nii.gz") or (suffix == "roi" and "label" not in entities):
                continue
            if any(entities.get(key, own.get(key)) != own.get(key) for key in ("session", "acquisition", "run")):
                continue
            space = {None: "gre", "T1w": "T1w", "orig": "T1w"}.get(entities.get("space"))
            if space is None:
                continue
            keys = ("label",) if suffix == "roi" else ("atlas", "segmentation", "description")
            name = next((entities[key] for key in keys if key in entities), suffix)
            found.append({"name": name, "labels": str(path), "table": _table(path, folder), "space": space})
    return [dict(item) for item in {item["name"]: item for item in reversed(found)}.values()][::-1]


def user_maps(unit: ProcessingUnit, folders: Mapping[str, Path]) -> list[dict[str, str]]:
    """Quantitative maps (suffix ``...map``) of the unit that other software made, in the space of the gradient echo.

    Named by their suffix, with ``desc-`` if they have it; the unit is what the sidecar says.
    """
    found: dict[str, dict[str, str]] = {}
    own = derivative_entities(unit)
    for folder in folders.values():
        root = folder / f"sub-{unit.subject}"
        for path in sorted(root.rglob("*map.nii*")) if root.is_dir() else []:
            entities, suffix, _ = parse_name(path.name)
            others = any(entities.get(key, own.get(key)) != own.get(key) for key in ("session", "acquisition", "run"))
            if others or "space" in entities or "echo" in entities:
                continue
            name = suffix + (f"_{entities['description']}" if "description" in entities else "")
            found.setdefault(name, {"name": name, "path": str(path), "unit": _unit_of(path)})
    return list(found.values())


def _unit_of(path: Path) -> str:
    sidecar = path.with_name(path.name.partition(".")[0] + ".json")
    try:
        return str(json.loads(sidecar.read_text(encoding="utf-8"))["Units"])
    except (OSError, ValueError, KeyError, TypeError):
        return "n/a"


def _table(labels: Path, root: Path) -> str | None:
    """The table that names labels: next to them, else above in the dataset, else FreeSurfer's for its own images."""
    own = labels.with_name(labels.name.partition(".")[0] + ".tsv")
    if own.exists():
        return str(own)
    entities, suffix, _ = parse_name(labels.name)
    if suffix != "dseg":
        return None
    for path in sorted(root.glob("*_dseg.tsv")):
        known, _, _ = parse_name(path.name)
        if all(entities.get(key) == value for key, value in known.items()):
            return str(path)
    return str(FREESURFER) if of_freesurfer(labels.name) else None


def of_freesurfer(name: str) -> bool:
    """Whether labels of this name carry FreeSurfer's indices."""
    return any(word in name.lower() for word in ("aseg", "aparc", "synthseg", "freesurfer"))


def add_segmentation(builder: Any, plan: SegmentationPlan) -> None:
    """Nodes ``anatomy_fingerprint``, ``register_anatomy``, ``segmentation`` and ``publish_segmentation``.

    ``builder`` puts the unit's workflow together (:mod:`qsmxt.workflows.unit`).
    """
    context, text = builder.context, plan.to_json()
    groups = {group.output: group for group in builder.plan.groups}
    last = groups.get("qsm") or builder.plan.groups[-1]
    cache = str(context.work_dir / "shared")
    files = builder.node("anatomy_fingerprint", AnatomyFingerprint(files=[str(path) for path in plan.files]))
    register = builder.node("register_anatomy", RegisterAnatomy(plan=text, code=context.code, cache=cache))
    segment = builder.node(
        "segmentation",
        SegmentRegions(
            plan=text, code=context.code, unit=builder.unit, bids_dir=str(context.bids_dir), version=context.version
        ),
    )
    publish = builder.node("publish_segmentation", Publish(out_dir=str(context.out_dir)))
    state = builder.nodes[last.name]
    for node in (register, segment):
        builder.workflow.connect(state, "state", node, "state")
        builder.workflow.connect(files, "fingerprint", node, "fingerprint")
    builder.workflow.connect(register, "anatomy", segment, "anatomy")
    for output in builder.plan.outputs():
        write = builder.nodes[f"write_{output}"]
        builder.workflow.connect(write, "record", segment, f"record_{output}")
        builder.workflow.connect(write, "fingerprint", segment, f"fingerprint_{output}")
    builder.workflow.connect([(segment, publish, [("folder", "folder"), ("record", "record")])])
