"""From arrays to BIDS derivatives: written where the node works, then put in place in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, TraitedSpec, isdefined, traits

from qsmxt.interfaces.base import Interface
from qsmxt.interfaces.state import State, digest

#: What is recorded of a step.
_RECORDED = ("method", "parameters", "found", "consumes", "optional", "produces")


class WriteDerivativesInputSpec(BaseInterfaceInputSpec):
    """A finished state and what to save of it."""

    state = traits.Str(mandatory=True, desc="state (JSON)")
    unit = traits.Str(mandatory=True, desc="processing unit (JSON)")
    bids_dir = traits.Str(mandatory=True, desc="root of the source dataset")
    artifacts = traits.List(traits.Str(), mandatory=True, desc="what to save")
    label = traits.Str(mandatory=True, desc="name of the output, part of the record's name")
    version = traits.Str(mandatory=True, desc="version of QSMxT")
    code = traits.Str(mandatory=True, desc="version and digest of the code")


class FolderOutputSpec(TraitedSpec):
    """A folder laid out like the output dataset."""

    folder = traits.Str(desc="folder laid out like the output dataset")
    record = traits.Str(desc="record of the run, a file in it")
    fingerprint = traits.Str(desc="digest of everything that determines the files")


class WriteDerivatives(Interface):
    """Write maps, sidecars and a record of the run."""

    input_spec = WriteDerivativesInputSpec
    output_spec = FolderOutputSpec

    def execute(self, folder: str) -> None:
        """Write everything below ``folder``."""
        from qsmxt.bids.atomic import write_json
        from qsmxt.bids.outputs import Derivatives, save_volume, sidecar, sources
        from qsmxt.bids.provenance import makers
        from qsmxt.bids.units import ProcessingUnit
        from qsmxt.registry.artifacts import ARTIFACTS

        state = State.from_json(self.inputs.state)
        unit = ProcessingUnit.from_dict(json.loads(self.inputs.unit))
        derivatives = Derivatives(Path(folder) / "derivatives")
        files: dict[str, str] = {}
        made_by = makers(unit.name, state.steps, self.inputs.version)
        for name in self.inputs.artifacts:
            steps = history(name, state.steps)
            path = derivatives.artifact(unit, name)
            metadata = sidecar(
                unit,
                self.inputs.bids_dir,
                name,
                method_records=[describe(step) for step in steps],
                parameters=parameters_by_method(steps),
                version=self.inputs.version,
                extra={
                    "AutomaticParameters": found_by_method(steps),
                    **state.corrections,
                    **({"GeneratedBy": made_by[name]} if name in made_by else {}),
                    **(reference(state) if name == "chi" else {}),
                },
            )
            save_volume(
                path, state.load(name), np.array(state.affine), unit_label=ARTIFACTS[name].unit, sidecar=metadata
            )
            files[name] = path.relative_to(derivatives.out_dir).as_posix()
        record = derivatives.logs(unit.subject) / f"{unit.name}_{self.inputs.label}.json"
        images = sources(unit, self.inputs.bids_dir)
        values = make_record(unit, state, files, self.inputs.version)
        origin = {"sources": images, "digests": dict(zip(images, state.digests, strict=False))}
        write_json(record, {**values, "output": self.inputs.label, **origin})
        fingerprint = digest(state.fingerprint, list(self.inputs.artifacts), self.inputs.code)
        self._results.update(folder=str(derivatives.out_dir), record=str(record), fingerprint=fingerprint)


def make_record(unit: Any, state: State, files: dict[str, str], version: str) -> dict[str, Any]:
    """What ran for a unit, with what result; the report and the citations are made from it."""
    return {
        "unit": unit.name,
        "subject": unit.subject,
        "session": unit.session,
        "version": version,
        "echo_times": [echo.echo_time for echo in unit.echoes],
        "field_strength": unit.field_strength,
        "grid": state.grid,
        "files": files,
        "steps": [{key: step[key] for key in _RECORDED if key in step} for step in state.steps],
        "notes": state.notes,
        "statistics": state.statistics,
    }


def reference(state: State) -> dict[str, Any]:
    """What the susceptibility map is relative to, for its sidecar."""
    from qsmxt.bids.outputs import susceptibility_reference
    from qsmxt.registry.catalogue import find

    for step in state.steps:
        if step["method"].startswith("referencing."):
            return susceptibility_reference(describe(step), step["parameters"], state.load("reference_offset"))
    return susceptibility_reference(find("referencing", "none"), {}, 0.0)


def history(artifact: str, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps that ``artifact`` descends from, in order."""
    needed = {artifact}
    kept = []
    for step in reversed(steps):
        if needed.intersection(step["produces"]):
            kept.append(step)
            needed.update(step["consumes"])
            needed.update(step["optional"])
    return kept[::-1]


def parameters_by_method(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Parameters of every step; a method that ran twice has a list."""
    found: dict[str, list[Any]] = {}
    for step in steps:
        found.setdefault(step["method"], []).append(step["parameters"])
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def found_by_method(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """What steps found for parameters of ``"auto"``; one value an echo where a step ran on every echo."""
    return {step["method"]: step["found"] for step in steps if step.get("found")}


def describe(step: dict[str, Any]) -> Any:
    """The catalogue's entry of the method of a step."""
    from qsmxt.registry.catalogue import find

    return find(*step["method"].split("."))


class PublishInputSpec(BaseInterfaceInputSpec):
    """A folder and where it belongs."""

    folder = traits.Str(mandatory=True, desc="folder laid out like the output dataset")
    record = traits.Str(desc="record whose file list replaces an earlier one")
    out_dir = traits.Str(mandatory=True, desc="root of the output dataset")
    kept = traits.List(traits.Str(), desc="files of the user that are never written over")


class PublishOutputSpec(TraitedSpec):
    """The files."""

    files = traits.List(traits.Str(), desc="all files, in the output dataset")


class Publish(Interface):
    """Put files into the output dataset, each in one step, unless they are there already.

    It always runs, so that outputs removed by hand come back, and what an earlier run with other settings left of
    the same unit goes away. A mask that the run was told to use stays as it is, even in the output folder.
    """

    input_spec = PublishInputSpec
    output_spec = PublishOutputSpec
    _always_run = True

    def execute(self, folder: str) -> None:
        """Copy by renaming."""
        source, out_dir = Path(self.inputs.folder), Path(self.inputs.out_dir)
        record = Path(self.inputs.record) if isdefined(self.inputs.record) else None
        files = sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: (path == record, path))
        if record is not None:
            self._remove_abandoned(out_dir / record.relative_to(source), record, out_dir)
        kept = {Path(name).resolve() for name in self.inputs.kept} if isdefined(self.inputs.kept) else set()
        for path in files:
            target = out_dir / path.relative_to(source)
            if target.resolve() not in kept:
                put_in_place(path, target)
        self._results["files"] = [str(out_dir / path.relative_to(source)) for path in files]

    @staticmethod
    def _remove_abandoned(earlier: Path, record: Path, out_dir: Path) -> None:
        """Delete what the record of an earlier run lists and this one does not make any more."""
        from qsmxt.bids.outputs import sidecar_path

        try:
            before = set(json.loads(earlier.read_text(encoding="utf-8"))["files"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        now = set(json.loads(record.read_text(encoding="utf-8"))["files"].values())
        for name in before - now:
            path = (out_dir / str(name)).resolve()
            if path.is_relative_to(out_dir.resolve()):
                path.unlink(missing_ok=True)
                sidecar_path(path).unlink(missing_ok=True)


def put_in_place(source: Path, target: Path) -> None:
    """Make ``target`` a copy of ``source`` in one step; nothing happens if it is one already."""
    from qsmxt.bids.atomic import write_bytes

    content = source.read_bytes()
    try:
        if target.stat().st_size == len(content) and target.read_bytes() == content:
            return
    except OSError:
        pass
    write_bytes(target, content)
