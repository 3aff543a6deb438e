"""What is declared about every method, readable without importing a single algorithm.

Flags, configuration and plans need titles, parameters, bounds and costs, not code. ``catalogue.json`` holds
them; it is written from the declarations by ::

    python -m qsmxt.registry.catalogue --write

and a test fails when it lags behind. The records read here are ordinary :class:`~qsmxt.registry.methods.Method`
objects whose function imports the algorithm only when it is called, so that :func:`~qsmxt.registry.methods.resolve`
works on them as on the registered ones.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsmxt.errors import ParameterError
from qsmxt.registry.methods import Cost, DeclaredParameter, Method, Param, all_methods, lookup
from qsmxt.registry.stages import stage_keys

#: The generated file.
CATALOGUE_FILE = Path(__file__).with_name("catalogue.json")

_TYPES: dict[str, Any] = {"float": float, "int": int, "bool": bool, "str": str, "tuple": tuple, "None": None}


@dataclass(frozen=True)
class CataloguedMethod(Method):
    """A method as the catalogue knows it; its parameters come from the file instead of a dataclass."""

    declarations: tuple[DeclaredParameter, ...] = ()

    def declared_parameters(self) -> tuple[DeclaredParameter, ...]:
        """All parameters in the order of their declaration."""
        return self.declarations

    def configure(self, values: Mapping[str, Any] | None = None) -> Any:
        """The parameter object of the registered method (imports it)."""
        return lookup(self.stage, self.key).configure(values)

    def complete(self, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every parameter with its value, given or default, checked; imports nothing."""
        given = dict(values or {})
        checked = {d.name: d.check(given.pop(d.name, d.default), self.name) for d in self.declarations}
        if given:
            known = ", ".join(checked) or "none"
            raise ParameterError(f"{self.name}: unknown parameter {sorted(given)[0]!r}; it has {known}")
        return checked


def type_text(declared: Any) -> str:
    """A parameter's type as text that :func:`read_type` reads back, such as ``tuple[int, ...]``."""
    return declared.__name__ if isinstance(declared, type) and not hasattr(declared, "__args__") else str(declared)


def read_type(text: str) -> Any:
    """The type that ``text`` names."""
    return eval(text, {"__builtins__": {}}, _TYPES)  # only ever text of our own file


def describe(method: Method) -> dict[str, Any]:
    """Everything declared about ``method`` except its code, as plain values."""
    return {
        "key": method.key,
        "title": method.title,
        "consumes": list(method.consumes),
        "optional": list(method.optional),
        "produces": list(method.produces),
        "references": list(method.references),
        "sentence": method.sentence,
        "cost": dataclasses.asdict(method.cost),
        "status": method.status,
        "extra": method.extra,
        "linear": method.linear,
        "on_device": method.on_device,
        "module": method.function.__module__,
        "parameters": [_describe_parameter(declared) for declared in method.declared_parameters()],
    }


def _describe_parameter(parameter: DeclaredParameter) -> dict[str, Any]:
    declared = dataclasses.asdict(parameter.declared)
    bounds = {name: value for name, value in declared.items() if value is not None and value is not False}
    if "choices" in bounds:
        bounds["choices"] = list(bounds["choices"])
    default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    return {"name": parameter.name, "type": type_text(parameter.type), "default": default, **bounds}


def generate() -> str:
    """Text of the catalogue, from the declarations."""
    stages: dict[str, list[dict[str, Any]]] = {key: [] for key in stage_keys()}
    for method in all_methods().values():
        stages[method.stage].append(describe(method))
    return json.dumps(stages, indent=1, ensure_ascii=False) + "\n"


def _read_parameter(entry: dict[str, Any]) -> DeclaredParameter:
    bounds = {name: value for name, value in entry.items() if name not in ("name", "type", "default")}
    if "choices" in bounds:
        bounds["choices"] = tuple(bounds["choices"])
    default = tuple(entry["default"]) if isinstance(entry["default"], list) else entry["default"]
    return DeclaredParameter(entry["name"], read_type(entry["type"]), default, Param(**bounds))


def _read_method(stage: str, entry: dict[str, Any]) -> CataloguedMethod:
    def run(*arguments: Any, **keywords: Any) -> Any:
        return lookup(stage, entry["key"]).function(*arguments, **keywords)

    run.__module__ = entry["module"]
    return CataloguedMethod(
        key=entry["key"],
        title=entry["title"],
        stage=stage,
        consumes=tuple(entry["consumes"]),
        produces=tuple(entry["produces"]),
        function=run,
        parameters=types.SimpleNamespace,
        optional=tuple(entry["optional"]),
        references=tuple(entry["references"]),
        sentence=entry["sentence"],
        cost=Cost(**entry["cost"]),
        status=entry["status"],
        extra=entry["extra"],
        linear=entry["linear"],
        on_device=entry["on_device"],
        declarations=tuple(_read_parameter(p) for p in entry["parameters"]),
    )


@functools.cache
def catalogue() -> dict[str, dict[str, CataloguedMethod]]:
    """All methods by stage and key, in the order of the stages and rosters."""
    stored = json.loads(CATALOGUE_FILE.read_text(encoding="utf-8"))
    return {stage: {e["key"]: _read_method(stage, e) for e in stored.get(stage, [])} for stage in stage_keys()}


def find(stage: str, key: str) -> CataloguedMethod:
    """The method ``key`` of ``stage``, or :class:`ParameterError` that lists what there is."""
    known = catalogue().get(stage)
    if known is None:
        raise ParameterError(f"unknown stage {stage!r}; expected one of {', '.join(catalogue())}")
    if key not in known:
        raise ParameterError(f"{stage}: unknown method {key!r}; expected one of {', '.join(known) or 'none'}")
    return known[key]


def main(arguments: list[str] | None = None) -> int:
    """``--write`` rewrites the catalogue; without it, exit 1 if it is out of date."""
    arguments = sys.argv[1:] if arguments is None else arguments
    fresh = generate()
    stored = CATALOGUE_FILE.read_text(encoding="utf-8") if CATALOGUE_FILE.is_file() else ""
    if "--write" in arguments:
        if fresh != stored:
            CATALOGUE_FILE.write_text(fresh, encoding="utf-8")
        return 0
    if fresh != stored:
        print(f"{CATALOGUE_FILE} is out of date; run: python -m qsmxt.registry.catalogue --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
