"""Declaration of methods: one place from which flags, configuration, documents, citations and sidecars derive.

A method lives in one file: a frozen dataclass of parameters and a decorated function::

    @dataclass(frozen=True)
    class TKDParameters:
        threshold: float = parameter(0.15, unit="1", above=0, below=2 / 3, help="...")

    @method(stage="inversion", key="tkd", title="...", consumes=("local_field", "mask"), produces=("chi",),
            parameters=TKDParameters, references=("shmueli2009",), sentence="...", cost=Cost(bytes_per_voxel=40))
    def tkd(local_field, mask, grid, parameters=TKDParameters(), *, progress=None): ...

Call shape of every method: the arrays of ``consumes`` in that order, then the
:class:`~qsmxt.geometry.Grid`, then the parameters; arrays of ``optional`` and ``progress`` by keyword
(``None`` when absent). It returns the array of ``produces``, or a tuple of them in that order.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from qsmxt.errors import ParameterError, WorkflowError
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.registry.stages import stage_keys

Progress = Callable[[float], None]


_METADATA_KEY = "qsmxt"

#: Status of a method beside which every other one of its stage is shown.
BASELINE = "baseline"


def portion(progress: Progress | None, start: float, share: float) -> Progress | None:
    """What a part of the work calls, which begins at ``start`` and is ``share`` of the whole.

    >>> portion(print, 0.5, 0.25)(1.0)
    0.75
    """
    return None if progress is None else lambda part: progress(start + share * part)


@dataclass(frozen=True)
class Param:
    """What is declared about one parameter besides its name, type and default."""

    help: str
    unit: str = "1"
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] | None = None
    auto: bool = False

    def bounds_text(self) -> str:
        """Bounds in words, empty if there are none."""
        parts = []
        for symbol, bound in ((">", self.above), (">=", self.at_least), ("<", self.below), ("<=", self.at_most)):
            if bound is not None:
                parts.append(f"{symbol} {bound:g}")
        if self.choices:
            parts.append("one of " + ", ".join(self.choices))
        if self.auto:
            parts.append('or "auto"')
        return ", ".join(parts)


def parameter(
    default: Any,
    *,
    help: str,
    unit: str = "1",
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] | None = None,
    auto: bool = False,
) -> Any:
    """A dataclass field that carries unit, bounds and help.

    Bounds apply to every element of a tuple. ``auto=True`` lets the string ``"auto"`` stand for a value that
    the method finds from the data.
    """
    declared = Param(help, unit, above, at_least, below, at_most, choices, auto)
    return field(default=default, metadata={_METADATA_KEY: declared})


@dataclass(frozen=True)
class Cost:
    """What one run needs: memory beyond its inputs, its products included, and threads.

    The memory is ``bytes_per_voxel`` of the grid, ``bytes_per_echo`` more per voxel for every echo (coil and echo, spin
    echo, orientation) that it is given. ``seconds_per_megavoxel`` is CPU time at the default parameters, for planning
    only.
    """

    bytes_per_voxel: float = 32.0
    threads: int = 2
    seconds_per_megavoxel: float = 1.0
    bytes_per_echo: float = 0.0

    def bytes_for(self, voxels: int, echoes: int) -> float:
        """Memory that grows with the images, bytes."""
        return (self.bytes_per_voxel + self.bytes_per_echo * echoes) * voxels


@dataclass(frozen=True)
class DeclaredParameter:
    """A parameter together with the name, type and default that its dataclass gives it."""

    name: str
    type: Any
    default: Any
    declared: Param

    def check(self, value: Any, owner: str) -> Any:
        """``value`` converted to the declared type, or :class:`ParameterError`."""
        if self.declared.auto and value == "auto":
            return value
        try:
            converted = _convert(value, self.type)
        except (TypeError, ValueError):
            raise ParameterError(
                f"{owner}: parameter {self.name}: expected {_type_name(self.type)}, found {value!r}"
            ) from None
        for element in converted if isinstance(converted, tuple) else (converted,):
            self._check_bounds(element, owner)
        return converted

    def _check_bounds(self, value: Any, owner: str) -> None:
        declared = self.declared
        if value is None:
            return
        good = True
        if declared.choices is not None:
            good = value in declared.choices
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            good = (
                not math.isnan(value)
                and (declared.above is None or value > declared.above)
                and (declared.at_least is None or value >= declared.at_least)
                and (declared.below is None or value < declared.below)
                and (declared.at_most is None or value <= declared.at_most)
            )
        if not good:
            expected = f"{'' if declared.choices else 'a value '}{declared.bounds_text()}"
            raise ParameterError(
                f"{owner}: parameter {self.name}: expected {expected}"
                f"{'' if declared.unit == '1' else ' (' + declared.unit + ')'}, found {value!r}"
            )


def declared_fields(settings: type) -> tuple[DeclaredParameter, ...]:
    """The fields of a dataclass that :func:`parameter` made, in the order of their declaration."""
    hints = typing.get_type_hints(settings)
    return tuple(
        DeclaredParameter(f.name, hints[f.name], f.default, f.metadata[_METADATA_KEY])
        for f in dataclasses.fields(settings)
        if _METADATA_KEY in f.metadata
    )


@dataclass(frozen=True)
class Method:
    """A registered method; see the module docstring for the meaning of its fields."""

    key: str
    title: str
    stage: str
    consumes: tuple[str, ...]
    produces: tuple[str, ...]
    function: Callable[..., Any]
    parameters: type
    optional: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    sentence: str = ""
    cost: Cost = Cost()
    status: str = "stable"
    extra: str | None = None
    linear: bool = False
    on_device: bool = False

    @property
    def name(self) -> str:
        """``stage.key``, unique over all methods."""
        return f"{self.stage}.{self.key}"

    def declared_parameters(self) -> tuple[DeclaredParameter, ...]:
        """All parameters in the order of their declaration."""
        return declared_fields(self.parameters)

    def configure(self, values: Mapping[str, Any] | None = None) -> Any:
        """The parameter object with ``values`` in place of defaults, every value checked."""
        given = dict(values or {})
        complete = {}
        for declared in self.declared_parameters():
            complete[declared.name] = declared.check(given.pop(declared.name, declared.default), self.name)
        if given:
            known = ", ".join(d.name for d in self.declared_parameters()) or "none"
            raise ParameterError(f"{self.name}: unknown parameter {sorted(given)[0]!r}; it has {known}")
        return self.parameters(**complete)

    def run(
        self,
        arrays: Mapping[str, Any],
        grid: Any,
        parameters: Any = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Call the method with arrays by name; returns its products by name.

        ``parameters`` may be the dataclass, a mapping, or ``None`` for the defaults. ``progress`` is called with the
        part of the work that is done, last with 1, be it that an iteration ended early or that the method says nothing.
        """
        missing = [name for name in self.consumes if arrays.get(name) is None]
        if missing:
            raise WorkflowError(f"{self.name}: needs {', '.join(missing)}")
        if parameters is None or isinstance(parameters, Mapping):
            parameters = self.configure(parameters)
        extras = {name: arrays[name] for name in self.optional if arrays.get(name) is not None}
        told = [0.0]

        def tell(part: float) -> None:
            told[0] = part
            progress(part)  # type: ignore[misc]

        listener = None if progress is None else tell
        result = self.function(*(arrays[name] for name in self.consumes), grid, parameters, progress=listener, **extras)
        if progress is not None and told[0] < 1:
            progress(1.0)
        if len(self.produces) == 1:
            result = (result,)
        return dict(zip(self.produces, result, strict=True))


_METHODS: dict[str, Method] = {}

_FOUND: ContextVar[dict[str, Any] | None] = ContextVar("found", default=None)


@contextmanager
def automatic_values() -> Iterator[dict[str, Any]]:
    """Collect what a method that runs inside finds for its parameters of ``"auto"``, by their names.

    >>> with automatic_values() as found:
    ...     _ = found_value("weight", 2e-4)
    >>> found
    {'weight': 0.0002}
    """
    collected: dict[str, Any] = {}
    token = _FOUND.set(collected)
    try:
        yield collected
    finally:
        _FOUND.reset(token)


def found_value(name: str, value: Any) -> Any:
    """``value``, which a method found for its parameter ``name``; whoever runs the method may record it."""
    collected = _FOUND.get()
    if collected is not None:
        collected[name] = value
    return value


def method(
    *,
    stage: str,
    key: str,
    title: str,
    consumes: tuple[str, ...],
    produces: tuple[str, ...],
    parameters: type,
    optional: tuple[str, ...] = (),
    references: tuple[str, ...] = (),
    sentence: str = "",
    cost: Cost = Cost(),
    status: str = "stable",
    extra: str | None = None,
    linear: bool = False,
    on_device: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function; it is returned unchanged, with the record as its ``.method``.

    Parameters
    ----------
    stage, key, title
        Where it belongs, its short published name (lower case), and its name in words.
    consumes, optional, produces
        Names of artifacts. The builder resolves backwards through them, so a method that consumes
        ``wrapped_phase`` and produces ``chi`` makes unwrapping and background removal disappear.
    parameters
        Frozen dataclass whose fields are made by :func:`parameter`.
    references
        Keys in ``qsmxt/data/references/*.bib`` that a user of the method must cite.
    sentence
        Methods text, a Python format string over the parameters.
    cost, status, extra
        Resources; ``"stable"``, ``"experimental"`` or ``"baseline"``; name of the optional extra it needs.
    linear
        Whether the products scale with the consumed field (tested).
    on_device
        Whether it takes arrays of CuPy or PyTorch as well, computes where they lie, and gives such arrays back
        (tested); every other method refuses them.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if stage not in stage_keys():
            raise WorkflowError(f"method {key}: unknown stage {stage!r}")
        for name in (*consumes, *optional, *produces):
            if name not in ARTIFACTS:
                raise WorkflowError(f"method {stage}.{key}: unknown artifact {name!r}")
        record = Method(
            key, title, stage, consumes, produces, function, parameters,
            optional, references, sentence, cost, status, extra, linear, on_device,
        )  # fmt: skip
        if record.name in _METHODS and _METHODS[record.name].function.__module__ != function.__module__:
            raise WorkflowError(f"method {record.name} is registered twice")
        _METHODS[record.name] = record
        function.method = record  # type: ignore[attr-defined]
        return function

    return register


def methods(stage: str) -> dict[str, Method]:
    """All methods of ``stage`` by key, in the order of the stage's roster."""
    if stage not in stage_keys():
        raise ParameterError(f"unknown stage {stage!r}; expected one of {', '.join(stage_keys())}")
    importlib.import_module(f"qsmxt.algorithms.{stage}")
    return {record.key: record for record in _METHODS.values() if record.stage == stage}


def all_methods() -> dict[str, Method]:
    """All methods by ``stage.key``."""
    return {record.name: record for stage in stage_keys() for record in methods(stage).values()}


def lookup(stage: str, key: str) -> Method:
    """The method ``key`` of ``stage``, or :class:`ParameterError` that lists what there is."""
    found = methods(stage)
    if key not in found:
        raise ParameterError(f"{stage}: unknown method {key!r}; expected one of {', '.join(found)}")
    return found[key]


def resolve(target: str, chosen: list[Method], available: set[str]) -> list[Method]:
    """The methods of ``chosen``, in order of execution, that are needed to make ``target``.

    Works backwards: whoever produces the target is kept, then whoever produces what that one consumes, until
    only ``available`` artifacts are asked for. Methods that nobody needs disappear.

    Raises
    ------
    WorkflowError
        If an artifact is needed that is neither available nor produced by a chosen method.
    """
    order: list[Method] = []
    visiting: list[str] = []

    def need(name: str, user: Method | None) -> None:
        if name in available:
            return
        makers = [m for m in chosen if name in m.produces and m is not user]
        if not makers:
            asked = f"{user.name} needs" if user else "asked for"
            raise WorkflowError(f"{asked} {name}, but no chosen method produces it")
        maker = makers[-1]
        if maker in order:
            return
        if maker.name in visiting:
            raise WorkflowError(f"circular dependency: {' -> '.join([*visiting, maker.name])}")
        visiting.append(maker.name)
        for consumed in maker.consumes:
            need(consumed, maker)
        visiting.pop()
        order.append(maker)

    need(target, None)
    return order


def _convert(value: Any, declared: Any) -> Any:
    origin = typing.get_origin(declared)
    arguments = typing.get_args(declared)
    if origin is tuple:
        items = tuple(value) if not isinstance(value, str) else tuple(value.replace(",", " ").split())
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(item, arguments[0]) for item in items)
        if len(items) != len(arguments):
            raise ValueError
        return tuple(_convert(item, kind) for item, kind in zip(items, arguments, strict=True))
    if arguments and origin is not tuple:  # a union such as float | None
        if value is None and type(None) in arguments:
            return None
        for kind in arguments:
            if kind is type(None):
                continue
            try:
                return _convert(value, kind)
            except (TypeError, ValueError):
                continue
        raise ValueError
    if declared is bool:
        if isinstance(value, str):
            if value.lower() in ("true", "yes", "on", "1"):
                return True
            if value.lower() in ("false", "no", "off", "0"):
                return False
            raise ValueError
        if not isinstance(value, bool):
            raise ValueError
        return value
    if declared is int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        return int(value)
    if declared is float:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    if declared is str:
        if not isinstance(value, str):
            raise ValueError
        return value
    return value


def _type_name(declared: Any) -> str:
    return getattr(declared, "__name__", None) if typing.get_origin(declared) is None else str(declared)  # type: ignore[return-value]
