"""Acquisitions of one head in several orientations: which belong together, and the workflow that unites them.

It runs after the units, because it needs the local fields of all of them. The result lies on the grid of the first
acquisition, is named after it and has a record and a section in the report of its own.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsmxt.bids.outputs import Derivatives, sources
from qsmxt.bids.units import ProcessingUnit
from qsmxt.config import NO_METHOD, Settings
from qsmxt.errors import WorkflowError
from qsmxt.interfaces.derivatives import Publish, WriteDerivatives
from qsmxt.interfaces.methods import RunMethods
from qsmxt.interfaces.orientation import RegisterOrientations
from qsmxt.interfaces.segmentation import AnatomyFingerprint
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.registry.catalogue import CataloguedMethod, catalogue, find
from qsmxt.reports.interface import DrawFigures
from qsmxt.workflows.resources import Resources
from qsmxt.workflows.unit import Context
from qsmxt.workflows.watch import Outcome

logger = logging.getLogger("qsmxt")

#: Stage, suffix in the name of what is united, and label of its record.
STAGE, SUFFIX, LABEL = "orientation", "orientations", "orientation"

#: Orientations from which a tensor can be computed, and what a method that does so makes.
TENSOR_ORIENTATIONS, TENSOR = 6, "susceptibility_tensor"

#: Bytes per voxel of registration, and of every orientation besides.
_REGISTERING, _EACH = 120.0, 24.0


@dataclass(frozen=True)
class OrientationSet:
    """Acquisitions of one head; the first gives the grid."""

    units: tuple[ProcessingUnit, ...]

    @property
    def united(self) -> ProcessingUnit:
        """The first acquisition under the name of the set."""
        return dataclasses.replace(self.units[0], suffix=SUFFIX)


def find_sets(units: Sequence[ProcessingUnit]) -> list[OrientationSet]:
    """Which units belong together, in the order of the units.

    Those of one session with the same suffix, echoes and field strength; where no session of a subject has two of a
    kind, those of all its sessions.
    """
    within: dict[Any, list[ProcessingUnit]] = {}
    for unit in units:
        within.setdefault((_kind(unit), unit.session), []).append(unit)
    several = {kind for (kind, _), members in within.items() if len(members) > 1}
    groups: dict[Any, list[ProcessingUnit]] = {}
    for (kind, session), members in within.items():
        groups.setdefault((kind, session if kind in several else None), []).extend(members)
    return [OrientationSet(tuple(members)) for members in groups.values() if len(members) > 1]


def _kind(unit: ProcessingUnit) -> tuple[Any, ...]:
    times = tuple(round(echo.echo_time, 4) for echo in unit.echoes)
    return unit.subject, unit.suffix, times, round(unit.field_strength, 2)


def chosen_methods(settings: Settings, orientations: int) -> list[CataloguedMethod]:
    """The method that was chosen, and with enough orientations also what makes a tensor."""
    key = settings.stage(STAGE).method
    if key == NO_METHOD:
        raise WorkflowError("output orientation: no method; choose one with --orientation-method")
    found = [find(STAGE, key)]
    if orientations >= TENSOR_ORIENTATIONS:
        found += [m for m in catalogue()[STAGE].values() if TENSOR in m.produces and m.key != key]
    return found


def run_orientations(
    units: Sequence[ProcessingUnit],
    outcomes: Sequence[Outcome],
    settings: Settings,
    context: Context,
    work_dir: Path,
    resources: Resources,
) -> list[Outcome]:
    """Unite the orientations of every head, if that was asked for; one outcome for every set."""
    if not settings.outputs.orientation:
        return []
    done = {outcome.name for outcome in outcomes if outcome.status == "done"}
    sets = find_sets(units)
    for subject in sorted({unit.subject for unit in units} - {item.units[0].subject for item in sets}):
        logger.warning("sub-%s: --orientation: expected several acquisitions of a kind, found one; left out", subject)
    results = []
    for item in sets:
        complete = OrientationSet(tuple(unit for unit in item.units if unit.name in done))
        name, subject = item.united.name, item.united.subject
        if len(complete.units) < 2:
            reason = f"expected two finished acquisitions or more, found {len(complete.units)}"
            results.append(Outcome(name, subject, "skipped", reason, exit_code=65))
            continue
        results.append(_run(complete, settings, context, work_dir, resources))
    return results


def _run(item: OrientationSet, settings: Settings, context: Context, work_dir: Path, resources: Resources) -> Outcome:
    from qsmxt.workflows.flow import Flow
    from qsmxt.workflows.participants import unit_lock, write_taken
    from qsmxt.workflows.unit import unit_node_name

    try:
        with unit_lock(work_dir, item.united), Flow(settings, context, work_dir, resources) as flow:
            flow.add(item.united, init_orientation_wf(item, settings, context))
            found = flow.finish()
            write_taken(context.out_dir, flow.taken(), {unit_node_name(item.united): item.united.subject})
    except Exception as error:
        logger.debug("orientations", exc_info=True)
        return Outcome(item.united.name, item.united.subject, "failed", str(error), exit_code=1)
    return found[item.united.name]


def init_orientation_wf(item: OrientationSet, settings: Settings, context: Context) -> Any:
    """Workflow of a set: ``fingerprint``, ``register``, ``orientation``, and the nodes that write and draw."""
    from nipype.pipeline import engine as pe

    from qsmxt.workflows.unit import unit_node_name

    unit, methods = item.united, chosen_methods(settings, len(item.units))
    entries = acquisitions(item, context.out_dir)
    files = [entry[key] for entry in entries for key in ("magnitude", "field", "mask", "noise") if entry[key]]
    workflow = pe.Workflow(name=unit_node_name(unit))
    unit_text = json.dumps(unit.to_dict(), sort_keys=True)
    origin = {"Sources": [uri for member in item.units for uri in sources(member, context.bids_dir)]}
    memory = _memory(item.units)

    def node(name: str, interface: Any, mem_gb: float = 0.2, threads: int = 1) -> Any:
        made = pe.Node(interface, name=name, mem_gb=round(mem_gb, 3), n_procs=max(1, min(threads, context.threads)))
        workflow.add_nodes([made])
        return made

    fingerprint = node("fingerprint", AnatomyFingerprint(files=files))
    register = node(
        "register",
        RegisterOrientations(
            acquisitions=json.dumps(entries), corrections=json.dumps(origin, sort_keys=True), code=context.code
        ),
        memory,
    )
    steps = [step(method, settings) for method in methods]
    invert = node(
        LABEL, RunMethods(plan=json.dumps({"steps": steps}, sort_keys=True), code=context.code), memory, threads=2
    )
    saved = [name for method in methods for name in method.produces if ARTIFACTS[name].suffix]
    write = node(
        f"write_{LABEL}",
        WriteDerivatives(
            unit=unit_text, bids_dir=str(context.bids_dir), artifacts=saved, label=LABEL, version=context.version,
            code=context.code,
        ),
    )  # fmt: skip
    figures = node(f"figures_{LABEL}", DrawFigures(unit=unit_text, code=context.code))
    publish = node(f"publish_{LABEL}", Publish(out_dir=str(context.out_dir)))
    publish_figures = node(f"publish_figures_{LABEL}", Publish(out_dir=str(context.out_dir)))
    workflow.connect(fingerprint, "fingerprint", register, "fingerprint")
    workflow.connect(register, "state", invert, "state")
    workflow.connect(invert, "state", write, "state")
    workflow.connect(invert, "state", figures, "state")
    workflow.connect([(write, publish, [("folder", "folder"), ("record", "record")])])
    workflow.connect(
        [(write, figures, [("folder", "derivatives"), ("record", "record"), ("fingerprint", "fingerprint")])]
    )
    workflow.connect(figures, "folder", publish_figures, "folder")
    return workflow


def acquisitions(item: OrientationSet, out_dir: Path) -> list[dict[str, Any]]:
    """The derivatives of every acquisition that are needed."""
    derivatives = Derivatives(out_dir)
    named = {
        "magnitude": "combined_magnitude", "field": "local_field", "mask": "mask", "noise": "field_noise"
    }  # fmt: skip
    found = []
    for unit in item.units:
        files = {key: derivatives.artifact(unit, name) for key, name in named.items()}
        entry = {key: str(path) if path.exists() or key != "noise" else None for key, path in files.items()}
        found.append({"name": unit.name, **entry})
    return found


def step(method: CataloguedMethod, settings: Settings) -> dict[str, Any]:
    """The method with all its parameters, as nodes run it."""
    given: Mapping[str, Any] = settings.stage(STAGE).parameters.get(method.key, {})
    return {
        "method": method.name,
        "parameters": method.complete(given),
        "consumes": list(method.consumes),
        "optional": list(method.optional),
        "produces": list(method.produces),
    }


def _memory(units: Sequence[ProcessingUnit]) -> float:
    """GB that registration or inversion of a set needs."""
    from qsmxt.workflows.estimate import INTERPRETER, size_of

    voxels = size_of(units[0]).voxels
    return (INTERPRETER + voxels * (_REGISTERING + _EACH * len(units))) / 1e9
