"""Run registered methods, and build masks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.bids.atomic import plain
from qsmxt.interfaces.acquisition import external_mask
from qsmxt.interfaces.base import Interface, StateOutputSpec, StepInputSpec
from qsmxt.interfaces.state import State, digest, save_arrays

#: Stages after which only the part of the mask counts in which the local field is defined.
_AFTER_BACKGROUND = ("inversion", "merging", "referencing", "separation")
_NARROWED = {"mask": "eroded_mask", "reliable_mask": "reliable_eroded_mask"}

#: Stages that work on the support of the inversion, which holds the mask.
_ON_SUPPORT = ("background", "inversion")
_WIDENED = {"mask": "support_mask", "reliable_mask": "reliable_support_mask"}


class RunMethods(Interface):
    """Run a list of methods, each with all its parameters, and keep what they make."""

    input_spec = StepInputSpec
    output_spec = StateOutputSpec

    def execute(self, folder: str) -> None:
        """Run the steps of the plan in order."""
        from qsmxt.registry.artifacts import ARTIFACTS

        state = self._state()
        work = Workspace(state)
        steps = json.loads(self.inputs.plan)["steps"]
        for step in steps:
            work.run(step)
        masks = {
            name: np.asarray(array, dtype=bool)
            for name, array in work.made.items()
            if name in ARTIFACTS and ARTIFACTS[name].kind == "mask"
        }
        files = save_arrays(Path(folder), {**work.made, **masks})
        after = state.extended(
            {**work.renamed, **files},
            fingerprint=digest(state.fingerprint, self.inputs.plan, self.inputs.code),
            steps=reported(steps),
        )
        self._results["state"] = after.to_json()


class Workspace:
    """Arrays while methods run: those of the state, loaded when first needed, and those made since."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.grid = state.sampling()
        self.made: dict[str, Any] = {}
        self.renamed: dict[str, str] = {}

    def get(self, name: str) -> Any:
        """Array ``name`` or ``None``."""
        if name in self.made:
            return self.made[name]
        if name in self.renamed:
            return State.load(self._with_renamed(), name)
        return self.state.load(name)

    def _with_renamed(self) -> State:
        return self.state.extended(self.renamed, fingerprint="")

    def run(self, step: dict[str, Any]) -> None:
        """Run one step."""
        from qsmxt.registry.methods import automatic_values, lookup

        if "nested" in step:
            self._run_echoes(step)
            return
        stage, key = step["method"].split(".")
        if key == "none":
            self._hand_on(step["consumes"][0], step["produces"][0])
            return
        method, names = lookup(stage, key), step.get("names", {})
        arrays = {name: self._seen(stage, names.get(name, name)) for name in (*method.consumes, *method.optional)}
        with automatic_values() as found:
            made = method.run(arrays, self.grid, step["parameters"])
        if found:
            step["found"] = plain(found)
        if stage == "inversion" and self.get("support_mask") is not None:
            made = {name: np.where(self.get("mask"), array, np.float32(0)) for name, array in made.items()}
        self.made.update({names.get(name, name): array for name, array in made.items()})

    def _seen(self, stage: str, name: str) -> Any:
        """Array ``name`` as methods of ``stage`` see it.

        Masks are those of the support up to the inversion and, from it on, reach as far as the local field is defined.
        """
        whole = self.get(name)
        if name not in _NARROWED:
            return whole
        widened = self.get(_WIDENED[name]) if stage in _ON_SUPPORT else None
        seen = whole if widened is None else widened
        narrowed = self.get(_NARROWED[name]) if stage in _AFTER_BACKGROUND else None
        return seen if narrowed is None else np.logical_and(seen, narrowed)

    def _run_echoes(self, step: dict[str, Any]) -> None:
        """Run the nested steps on every echo and stack the maps."""
        (target,) = step["produces"]
        maps = []
        found: list[dict[str, list[Any]]] = [{} for _ in step["nested"]]
        for echo in range(len(self.get("echo_times"))):
            single = EchoWorkspace(self, echo)
            for nested, values in zip(step["nested"], found, strict=True):
                single.run(nested)
                for name, value in nested.pop("found", {}).items():
                    values.setdefault(name, []).append(value)
            maps.append(single.made["chi"])
        for nested, values in zip(step["nested"], found, strict=True):
            nested.update({"found": values} if values else {})
        self.made[target] = np.stack(maps)

    def _hand_on(self, given: str, made: str) -> None:
        if given in self.made:
            self.made[made] = self.made[given]
        else:
            self.renamed[made] = self.renamed.get(given, self.state.arrays[given])


class EchoWorkspace(Workspace):
    """A workspace that sees one echo of another, and keeps what it makes to itself."""

    def __init__(self, whole: Workspace, echo: int) -> None:
        super().__init__(whole.state)
        self.whole, self.echo = whole, echo

    def get(self, name: str) -> Any:
        """Array ``name`` of the echo."""
        from qsmxt.registry.artifacts import ARTIFACTS

        if name in self.made:
            return self.made[name]
        array = self.whole.get(name)
        several = name == "echo_times" or (name in ARTIFACTS and ARTIFACTS[name].kind == "echoes")
        return array[self.echo : self.echo + 1] if several and array is not None else array

    def _hand_on(self, given: str, made: str) -> None:
        self.made[made] = self.get(given)


def reported(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps as the record of a run holds them: nested ones one by one, and none that does nothing."""
    flat: list[dict[str, Any]] = []
    for step in steps:
        nested = [dict(inner) for inner in step.get("nested", ())]
        if nested:
            nested[-1]["produces"] = [*nested[-1]["produces"], *step["produces"]]
        flat += nested or [step]
    return [step for step in flat if not step["method"].endswith(".none")]


class BuildMask(Interface):
    """The mask, and the part of it in which the phase can be trusted."""

    input_spec = StepInputSpec
    output_spec = StateOutputSpec

    def execute(self, folder: str) -> None:
        """Run the sections and combine them."""
        from qsmxt.algorithms.masking.build import build_mask
        from qsmxt.registry.mask_sections import external_masks, parse_sections

        state = self._state()
        (step,) = json.loads(self.inputs.plan)["steps"]
        settings = step["parameters"]
        sections = parse_sections(settings["sections"])
        arrays: dict[str, Any] = {name: state.load(name) for name in (*step["consumes"], *step["optional"])}
        arrays["external_masks"] = self._external_masks(external_masks(sections), state)
        if not state.statistics.get("has_magnitude", True):
            arrays["magnitude"] = None
        if any(section.n4 for section in sections):
            from qsmxt.external.n4 import n4

            arrays["n4"] = n4
        result = build_mask(
            sections,
            arrays,
            state.sampling(),
            combine=settings["combine"],
            human_brain=settings["human_brain"],
        )
        masks = {"mask": result.mask, "reliable_mask": result.reliable_mask}
        if any(section.support is not None for section in sections):
            masks |= {"support_mask": result.support_mask, "reliable_support_mask": result.reliable_support_mask}
        files = save_arrays(Path(folder), masks)
        after = state.extended(
            files,
            fingerprint=digest(state.fingerprint, self.inputs.plan, self.inputs.code),
            steps=mask_steps(sections, step),
            notes=result.statistics.get("warnings", []),
            statistics={"mask": plain(result.statistics)},
        )
        self._results["state"] = after.to_json()

    def _external_masks(self, names: tuple[str, ...], state: State) -> dict[str, Any]:
        """Masks that the sections take as they are: from other derivatives, or by a program on the PATH."""
        from qsmxt.external import brain_extraction

        programs = {
            "hd-bet": brain_extraction.hd_bet,
            "synthstrip": brain_extraction.synthstrip,
            "registration": brain_extraction.template_registration,
        }
        masks = {}
        for name in names:
            stored = state.load(external_mask(name))
            if stored is None and name in programs:
                magnitude, affine = state.load("combined_magnitude"), np.array(state.affine)
                stored = programs[name](magnitude, affine, threads=self.inputs.num_threads)
            if stored is not None:
                masks[name] = stored
        return masks


def mask_steps(sections: tuple[Any, ...], step: dict[str, Any]) -> list[dict[str, Any]]:
    """What the sections run, as steps of a record, each method once per use."""
    made = {name: step[name] for name in ("consumes", "optional", "produces")}
    return [
        {"method": part.method.name, "parameters": plain(dataclasses.asdict(part.parameters)), **made}
        for section in sections
        for part in (section.generator, *section.refinements)
        if part is not None and part.method is not None
    ]
