"""Reconstructions that run several times and are merged: over two masks, or echo by echo.

A merging method says what it needs by what it consumes. ``reliable_chi`` and ``filled_chi`` stand for the chain from
background removal on, run on the reliable mask and on the whole one; ``echo_chi`` for the chain from field mapping on,
run on every echo. The chains are those that would have run once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qsmxt.registry.catalogue import catalogue
from qsmxt.registry.methods import BASELINE, Cost, Method, resolve

#: Stages that are repeated for another mask, and those repeated for every echo.
BY_MASK = ("background", "inversion")
BY_ECHO = ("field", "background", "inversion")

#: What the passes call their arrays: map -> other names of what depends on the mask.
PASSES: dict[str, dict[str, str]] = {
    "reliable_chi": {
        "mask": "reliable_mask",
        "chi": "reliable_chi",
        "local_field": "reliable_local_field",
        "eroded_mask": "reliable_eroded_mask",
    },
    "filled_chi": {"chi": "filled_chi"},
}

#: Stage whose methods are shown beside a baseline, and what the baseline calls its maps then.
COMPARED_STAGE = "separation"
BASELINE_MAPS = {"chi_paramagnetic": "closed_form_paramagnetic", "chi_diamagnetic": "closed_form_diamagnetic"}

ECHO_MAP = "echo_chi"
ECHO_STEP = "merging.each_echo"


@dataclass(frozen=True)
class RenamedMethod(Method):
    """A method that runs on arrays of other names: ``names`` maps the method's own to those."""

    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RepeatedMethod(Method):
    """Methods that run on one echo after the other."""

    nested: tuple[Method, ...] = ()


def with_baseline(chosen: list[Method], parameters: dict[str, dict[str, Any]]) -> list[Method]:
    """``chosen`` with the baseline of source separation beside another method, and its parameters in ``parameters``.

    The baseline has the relaxivities of the method that it is compared with.
    """
    others = [method for method in chosen if method.stage == COMPARED_STAGE]
    baseline = next((m for m in catalogue()[COMPARED_STAGE].values() if m.status == BASELINE), None)
    if baseline is None or not others or baseline.name == others[0].name:
        return chosen
    own = {declared.name for declared in baseline.declarations}
    shared = {name: value for name, value in parameters.get(others[0].name, {}).items() if name in own}
    parameters[baseline.name] = baseline.complete(shared)
    return [_renamed(baseline, BASELINE_MAPS), *chosen]


def with_passes(chosen: list[Method], known: Iterable[str]) -> list[Method]:
    """``chosen`` with the passes that a merging method among them asks for, in place of the single pass."""
    wanted = {name for method in chosen if method.stage == "merging" for name in method.consumes}
    if ECHO_MAP in wanted:
        return _echo_by_echo(chosen, set(known))
    if any(ECHO_MAP in method.optional for method in chosen):
        return [*chosen, _echo_by_echo(chosen, set(known))[-1]]
    passes = [names for name, names in PASSES.items() if name in wanted]
    if not passes:
        return chosen
    single = _after_mask(chosen)
    others = [method for method in chosen if method not in single]
    clones = [_renamed(method, names) for names in passes for method in single]
    return [*clones, *others]


def _after_mask(chosen: list[Method]) -> list[Method]:
    """The methods of the repeated stages that see the mask or what was made with it."""
    dependent = {"mask"}
    found = []
    for method in chosen:
        if method.stage in BY_MASK and dependent & set(method.consumes):
            found.append(method)
            dependent.update(method.produces)
    return found


def _renamed(method: Method, names: Mapping[str, str]) -> RenamedMethod:
    values: dict[str, Any] = {item.name: getattr(method, item.name) for item in dataclasses.fields(Method)}
    for role in ("consumes", "optional", "produces"):
        values[role] = tuple(names.get(name, name) for name in values[role])
    return RenamedMethod(**values, names=dict(names))


def _echo_by_echo(chosen: list[Method], known: set[str]) -> list[Method]:
    nested = [method for method in chosen if method.stage in BY_ECHO]
    others = [method for method in chosen if method.stage not in BY_ECHO]
    made_before = {name for method in others for name in method.produces} - {"chi"}
    chain = resolve("chi", nested, known | made_before)
    made = {name for method in chain for name in method.produces}
    consumes = tuple(dict.fromkeys(n for method in chain for n in method.consumes if n not in made))
    optional = tuple(
        dict.fromkeys(n for method in chain for n in method.optional if n not in made and n in known | made_before)
    )
    stage, key = ECHO_STEP.split(".")
    cost = Cost(
        max(method.cost.bytes_for(1, 1) for method in chain) + 8,
        max(method.cost.threads for method in chain),
        4 * sum(method.cost.seconds_per_megavoxel for method in chain),
        bytes_per_echo=4,
    )
    each = RepeatedMethod(
        key, "Reconstruction of every echo", stage, consumes, (ECHO_MAP,), _not_run, object, optional,
        cost=cost, nested=tuple(chain),
    )  # fmt: skip
    return [*others, each]


def _not_run(*arguments: Any, **keywords: Any) -> Any:
    raise NotImplementedError
