"""What will run for a unit: the methods that its outputs need, in order, in groups that become nodes.

Planning works on the catalogue: nothing scientific is imported. The builder asks for artifacts and resolves
backwards, so a method that consumes the total field makes background removal disappear without being told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from qsmxt.bids.units import ProcessingUnit
from qsmxt.config import NO_METHOD, Settings
from qsmxt.errors import InputError, WorkflowError
from qsmxt.interfaces.acquisition import REGION_FILES
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.registry.catalogue import CataloguedMethod
from qsmxt.registry.methods import Cost, Method, resolve
from qsmxt.workflows.masks import find_masks
from qsmxt.workflows.passes import RenamedMethod, RepeatedMethod, with_baseline, with_passes
from qsmxt.workflows.rates import TRAIN, SpinEcho, find_spin_echo
from qsmxt.workflows.references import find_regions, with_fluid

#: Artifacts that every output stands for. One line makes an output switch.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "qsm": ("chi",),
    "swi": ("swi", "minimum_intensity_projection"),
    "r2star": ("r2star",),
    "t2star": ("t2star",),
    "separation": ("chi_paramagnetic", "chi_diamagnetic"),
    "orientation": ("local_field",),
}

#: What an output is compared with, where a method makes it.
COMPARED: dict[str, tuple[str, ...]] = {"separation": ("closed_form_paramagnetic", "closed_form_diamagnetic")}

#: Outputs that make use of R2.
WITH_R2 = ("separation",)

#: What else is saved for an output where it was made on the way.
BESIDES: dict[str, tuple[str, ...]] = {
    "r2star": ("r2star_noise", "s0"),
    "t2star": ("t2star_noise", "s0"),
    "orientation": ("field_noise",),
    "separation": ("r2",),
}

#: Artifacts on the way to the susceptibility map that are saved only if an output asks for them.
ON_REQUEST = ("field_noise",)

#: Outputs that one echo cannot give.
SEVERAL_ECHOES = ("r2star", "t2star", "separation")

#: What a stage hands on unchanged when its method is ``none``: from -> to.
HANDED_ON: dict[str, tuple[str, str]] = {
    "offset": ("wrapped_phase", "offset_free_phase"),
    "background": ("total_field", "local_field"),
}

#: Name of the node that imports a unit.
LOADING = "load"

MASK_STEP = "masking.sections"

#: Most nodes whose states a node can unite.
MOST_STATES = 3

#: Inputs of mask sections that must have been made before.
_LOOKED_AT = {
    "magnitude": "magnitude",
    "phase": "wrapped_phase",
    "phase_quality": "phase_quality",
    "fit_quality": "fit_quality",
    "field_noise": "field_noise",
}


@dataclass(frozen=True)
class Step:
    """One method with all its parameters, ready to run; plain values only.

    ``names`` maps the method's names of arrays to those of the plan where they differ; ``nested`` steps run on every
    echo.
    """

    name: str
    parameters: dict[str, Any]
    consumes: tuple[str, ...]
    optional: tuple[str, ...]
    produces: tuple[str, ...]
    cost: Cost = field(default_factory=Cost)
    names: dict[str, str] = field(default_factory=dict)
    nested: tuple[Step, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What enters the hash of a node and the record of a run."""
        return {
            "method": self.name,
            "parameters": self.parameters,
            "consumes": list(self.consumes),
            "optional": list(self.optional),
            "produces": list(self.produces),
            **({"names": self.names} if self.names else {}),
            **({"nested": [step.to_dict() for step in self.nested]} if self.nested else {}),
        }


@dataclass(frozen=True)
class Group:
    """Steps that share a node.

    ``output`` is the output switch that asked for it first; ``after`` names the nodes whose states it continues.
    """

    name: str
    output: str
    steps: tuple[Step, ...]
    after: tuple[str, ...] = (LOADING,)

    def needs(self) -> set[str]:
        """Everything that its steps use and that it does not make itself."""
        used: set[str] = set()
        made: set[str] = set()
        for step in self.steps:
            used.update(name for name in (*step.consumes, *step.optional) if name not in made)
            made.update(step.produces)
        return used

    def produces(self) -> tuple[str, ...]:
        """Everything that its steps make."""
        return tuple(dict.fromkeys(name for step in self.steps for name in step.produces))


@dataclass(frozen=True)
class Plan:
    """All groups of a unit, in order, the artifacts asked for, what a user should know, and what was made elsewhere."""

    unit: ProcessingUnit
    groups: tuple[Group, ...]
    targets: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    masks: Mapping[str, Path] = field(default_factory=dict)
    spin_echo: SpinEcho | None = None

    def steps(self) -> list[Step]:
        """All steps in order."""
        return [step for group in self.groups for step in group.steps]

    def outputs(self) -> tuple[str, ...]:
        """The outputs that have groups of their own, in order."""
        return tuple(dict.fromkeys(group.output for group in self.groups))

    def saved(self, output: str) -> tuple[str, ...]:
        """The artifacts that ``output`` adds to the derivatives.

        Besides what was asked for, these are masks, and the fields on the way to the susceptibility map.
        """
        groups = [group for group in self.groups if group.output == output]
        steps = [step for group in groups for step in group.steps if not step.name.endswith(f".{NO_METHOD}")]
        made = [name for step in steps for name in step.produces if self._is_saved(name, output)]
        first = ["combined_magnitude"] if output == self.outputs()[0] else []
        return tuple(dict.fromkeys([*first, *made]))

    def _is_saved(self, name: str, output: str) -> bool:
        artifact = ARTIFACTS.get(name)
        if artifact is None or artifact.suffix is None:
            return False
        on_the_way = output == "qsm" and name not in ON_REQUEST
        return on_the_way or artifact.kind == "mask" or name in self.targets


def available_artifacts(unit: ProcessingUnit) -> set[str]:
    """What the scanner gives for ``unit``."""
    return {"wrapped_phase", "magnitude", "combined_magnitude", "phase_quality", "echo_times", "field_strength"}


def plan_unit(unit: ProcessingUnit, settings: Settings, derivatives: Mapping[str, Path] | None = None) -> Plan:
    """The groups of methods that make the outputs asked for.

    Raises
    ------
    WorkflowError
        If an output needs something that no chosen method makes, or none was asked for.
    InputError
        If the unit has too few echoes for all of them.
    MissingInputError
        If a mask is to come from ``derivatives`` and there is none.
    """
    outputs, notes = _possible(unit, settings)
    known = available_artifacts(unit)
    spin_echo = find_spin_echo(unit, derivatives or {}) if set(WITH_R2) & set(outputs) else None
    if spin_echo is not None:
        known |= {"spin_echo_magnitude", "spin_echo_times"} if spin_echo.kind == TRAIN else {"r2"}
        notes += (f"{unit.name}: R2 from {spin_echo.files[0].name}",)
    chosen, parameters = _candidates(settings, len(unit.echoes))
    regions: dict[str, Path] = {}
    if _refers(outputs, chosen):
        regions = find_regions(unit, chosen, derivatives or {})
        known |= {REGION_FILES[name] for name in regions}
        chosen = with_fluid(unit, chosen, regions)
    chosen = with_passes(with_baseline(chosen, parameters), known)
    groups: list[Group] = []
    for output in outputs:
        targets = (*OUTPUTS[output], *_compared(output, chosen))
        steps: list[Step] = []
        for target in (*_wished(output, targets, chosen, known), *targets):
            for method in _resolve(output, target, chosen, known):
                steps.append(_step(method, parameters))
                known.update(method.produces)
        for group in _split(output, steps):
            groups.append(replace(group, after=_after(group, groups)))
    asked = frozenset(
        name for output in outputs for name in (*OUTPUTS[output], *COMPARED.get(output, ()), *BESIDES.get(output, ()))
    )
    masks = {**find_masks(unit, settings.masking.sections, derivatives or {}), **regions}
    return Plan(unit, tuple(groups), asked, notes, masks, spin_echo)


def _refers(outputs: list[str], chosen: list[Method]) -> bool:
    """Whether an output is a susceptibility map or made with one."""
    targets = {name for output in outputs for name in OUTPUTS[output]}
    makers = [method for method in chosen if targets & set(method.produces)]
    return "chi" in targets or any("chi" in (*method.consumes, *method.optional) for method in makers)


def _compared(output: str, chosen: list[Method]) -> tuple[str, ...]:
    """What ``output`` is compared with, as far as a method makes it."""
    made = {name for method in chosen for name in method.produces}
    return tuple(name for name in COMPARED.get(output, ()) if name in made)


def _possible(unit: ProcessingUnit, settings: Settings) -> tuple[list[str], tuple[str, ...]]:
    """The outputs asked for that the unit has enough echoes for, and a note about the others."""
    asked = [output for output in OUTPUTS if getattr(settings.outputs, output)]
    if not asked:
        raise WorkflowError("no output was asked for; switch at least one on, such as --r2star")
    possible = [output for output in asked if len(unit.echoes) > 1 or output not in SEVERAL_ECHOES]
    left_out = ", ".join(output for output in asked if output not in possible)
    note = f"{unit.name}: {left_out}: expected several echoes, found one; left out"
    if not possible:
        raise InputError(note)
    return possible, (note,) if left_out else ()


def _wished(output: str, targets: tuple[str, ...], chosen: list[Method], known: set[str]) -> list[str]:
    """What the makers of an output besides the susceptibility map would like to have and somebody can make.

    So that the output is the same whether or not the susceptibility map is made as well.
    """
    if output == "qsm":
        return []
    makers = [method for target in targets for method in chosen if target in method.produces]
    names = dict.fromkeys(name for method in makers for name in method.optional if name not in known)
    wished = []
    for name in names:
        try:
            resolve(name, chosen, known)
        except WorkflowError:
            continue
        wished.append(name)
    return wished


def _resolve(output: str, target: str, chosen: list[Method], known: set[str]) -> list[Method]:
    try:
        return resolve(target, chosen, known)
    except WorkflowError as error:
        raise WorkflowError(f"output {output}: {error}; choose a method for the stage that makes it") from None


def _candidates(settings: Settings, echoes: int) -> tuple[list[Method], dict[str, dict[str, Any]]]:
    chosen: list[Method] = list(settings.chosen(echoes).values())
    parameters = {method.name: settings.stage(method.stage, echoes).complete(method.stage) for method in chosen}
    for stage, (given, made) in HANDED_ON.items():
        if settings.stage(stage, echoes).method == NO_METHOD:
            chosen.insert(0, _handing_on(stage, given, made))
    mask = _mask_method(settings.masking.sections)
    parameters[mask.name] = {**asdict(settings.masking), "sections": list(settings.masking.sections)}
    return [*chosen, mask], parameters


def _handing_on(stage: str, given: str, made: str) -> Method:
    cost = Cost(bytes_per_voxel=0, threads=1, seconds_per_megavoxel=0)
    return Method(NO_METHOD, f"No {stage}", stage, (given,), (made,), _not_run, object, cost=cost)


def _mask_method(sections: tuple[str, ...]) -> Method:
    """A stand-in for the sections: it needs what they look at."""
    stage, key = MASK_STEP.split(".")
    sources = [section.partition(",")[0].partition(":")[0].strip().replace("-", "_") for section in sections]
    needs = tuple(dict.fromkeys(_LOOKED_AT[source] for source in sources if source in _LOOKED_AT))
    wished = ("magnitude", "echo_times", "phase_quality", "fit_quality", *(("t1w",) if "t1w" in sources else ()))
    optional = tuple(name for name in wished if name not in needs)
    cost = Cost(bytes_per_voxel=12, seconds_per_megavoxel=0.2)
    made = ("mask", "reliable_mask", *(("support_mask",) if any(map(_has_support, sections)) else ()))
    return Method(key, "Mask", stage, needs, made, _not_run, object, optional, cost=cost)


def _has_support(section: str) -> bool:
    """Whether the field is inverted on another mask than the map is reported in."""
    return "support" in (step.strip().lower() for step in section.split(","))


def _not_run(*arguments: Any, **keywords: Any) -> Any:
    raise WorkflowError("a stand-in of the plan was run")


def _step(method: Method, parameters: dict[str, dict[str, Any]]) -> Step:
    values = parameters.get(method.name)
    if values is None:  # no setting chose it
        values = method.complete() if isinstance(method, CataloguedMethod) else {}
    names = dict(method.names) if isinstance(method, RenamedMethod) else {}
    nested = tuple(_step(inner, parameters) for inner in method.nested) if isinstance(method, RepeatedMethod) else ()
    return Step(method.name, values, method.consumes, method.optional, method.produces, method.cost, names, nested)


def _split(output: str, steps: list[Step]) -> list[Group]:
    """Groups before, at and after the mask: what does not depend on the mask is not repeated when it changes."""
    final = "chi" if output == "qsm" else output
    names = [step.name for step in steps]
    if MASK_STEP not in names:
        return [Group(final, output, tuple(steps))] if steps else []
    at = names.index(MASK_STEP)
    parts = {"field": steps[:at], "mask": steps[at : at + 1], final: steps[at + 1 :]}
    return [Group(name, output, tuple(part)) for name, part in parts.items() if part]


def _after(group: Group, earlier: list[Group]) -> tuple[str, ...]:
    """The fewest nodes whose states together hold all that ``group`` needs."""
    by_name = {other.name: other for other in earlier}
    makers = [other.name for other in earlier if group.needs() & set(other.produces())]
    reached: set[str] = set()
    for name in makers:
        reached |= _ancestors(by_name[name], by_name)
    last = tuple(name for name in makers if name not in reached) or (LOADING,)
    if len(last) > MOST_STATES:
        raise WorkflowError(f"{group.name}: continues {', '.join(last)}, but a node can continue {MOST_STATES} others")
    return last


def _ancestors(group: Group, by_name: dict[str, Group]) -> set[str]:
    found: set[str] = set()
    for name in group.after:
        if name in by_name:
            found |= {name} | _ancestors(by_name[name], by_name)
    return found
