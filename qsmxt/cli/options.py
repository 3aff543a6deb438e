"""Options that follow from declarations: both spellings, checked values, help text.

Nothing here knows a particular command; nothing imports an array library.
"""

from __future__ import annotations

import argparse
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from qsmxt.errors import ParameterError
from qsmxt.registry.catalogue import catalogue
from qsmxt.registry.methods import DeclaredParameter


class Formatter(argparse.HelpFormatter):
    """Help that shows one spelling of an option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        shown = [text for text in action.option_strings if "_" not in text]
        if action.nargs == 0:
            return ", ".join(shown)
        default = action.dest.upper()
        return f"{', '.join(shown)} {self._format_args(action, default)}"


class Parser(argparse.ArgumentParser):
    """A parser that knows every option with hyphens and with underscores."""

    def add(self, group: Any, *names: str, **keywords: Any) -> None:
        """Add an option to ``group`` under all spellings of its names."""
        spellings = [n for name in names for n in (name, _underscored(name))]
        group.add_argument(*dict.fromkeys(spellings), **keywords)


def _underscored(name: str) -> str:
    return "--" + name[2:].replace("-", "_") if name.startswith("--") else name


class StoreSetting(argparse.Action):
    """Check a value and put it into the layer of flags at ``path``."""

    def __init__(
        self, *, path: tuple[str, ...], declared: DeclaredParameter, value: Any = None, **keywords: Any
    ) -> None:
        super().__init__(**keywords)
        self.path, self.declared, self.value = path, declared, value

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Called by argparse."""
        given = self.value if self.nargs == 0 else values
        if isinstance(given, list) and len(given) == 1:
            given = given[0]
        try:
            checked = self.declared.check(given, "value")
        except ParameterError as error:
            raise argparse.ArgumentError(self, str(error).split(": ", 1)[-1]) from None
        put(namespace.flags, self.path, checked)


def put(layer: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set ``layer[path[0]][path[1]]... = value``."""
    for key in path[:-1]:
        layer = layer.setdefault(key, {})
    layer[path[-1]] = value


def setting_arguments(
    name: str, path: tuple[str, ...], declared: DeclaredParameter, *, hidden: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and keywords of the options of one setting; a switch has one to set it and one to clear it."""
    text = declared.declared.help.replace("%", "%%")
    common = {"path": path, "declared": declared, "default": argparse.SUPPRESS, "action": StoreSetting}
    if declared.type is bool:
        shown = text if not declared.default else argparse.SUPPRESS
        cleared = f"switches off: {text}" if declared.default else argparse.SUPPRESS
        yield name, {**common, "nargs": 0, "value": True, "help": argparse.SUPPRESS if hidden else shown}
        yield (
            f"--no-{name[2:]}",
            {**common, "nargs": 0, "value": False, "help": argparse.SUPPRESS if hidden else cleared},
        )
        return
    nargs = _tuple_length(declared.type)
    if nargs is not None:
        common["nargs"] = nargs
    yield name, {**common, "metavar": _metavar(declared, nargs), "help": argparse.SUPPRESS if hidden else text}


def _tuple_length(kind: Any) -> int | str | None:
    for option in (kind, *typing.get_args(kind)):
        if typing.get_origin(option) is tuple:
            parts = typing.get_args(option)
            return "+" if len(parts) == 2 and parts[1] is Ellipsis else len(parts)
    return None


def _metavar(declared: DeclaredParameter, nargs: int | str | None) -> Any:
    if declared.declared.choices:
        return "{" + ",".join(declared.declared.choices) + "}"
    word = declared.declared.unit if declared.declared.unit not in ("1", "") else "VALUE"
    return tuple([word] * nargs) if isinstance(nargs, int) else word


def hyphened(name: str) -> str:
    """``name`` as part of an option."""
    return name.replace("_", "-")


def describe_stage(stage: str) -> str:
    """All methods of a stage and their options, as text."""
    lines = []
    for method in catalogue()[stage].values():
        status = "" if method.status == "stable" else f" [{method.status}]"
        lines.append(f"--{stage} {method.key}: {method.title}{status}")
        for declared in method.declarations:
            name = f"--{stage}-{hyphened(method.key)}-{hyphened(declared.name)}"
            unit = "" if declared.declared.unit == "1" else f" {declared.declared.unit}"
            bounds = declared.declared.bounds_text()
            limits = f"; {bounds}" if bounds else ""
            lines.append(f"    {name}\n        {declared.declared.help} (default: {declared.default}{unit}{limits})")
    return "\n".join(lines) + "\n"
