"""Pages that follow from declarations: options, methods, presets, outputs. Written when the documents are built."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qsmxt import config
from qsmxt.algorithms.statistics.quality_metrics import METRICS
from qsmxt.cli import cluster, convert, demo, tui
from qsmxt.cli.arguments import build_parser
from qsmxt.cli.descriptor import error_codes
from qsmxt.cli.options import hyphened
from qsmxt.registry.artifacts import ARTIFACTS
from qsmxt.registry.catalogue import CataloguedMethod, catalogue
from qsmxt.registry.methods import DeclaredParameter
from qsmxt.registry.stages import STAGES
from qsmxt.reports.bibliography import bibliography
from qsmxt.reports.quality import range_text

#: Group of options in which every parameter of every method stands; those are on the page of methods.
METHOD_GROUP = "methods of the stages"


def write_all(folder: Path) -> None:
    """Write all generated pages into ``folder``; files that do not change keep their time."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"options": options_page(), "methods": methods_page(), "presets": presets_page(),
             "outputs": outputs_table(), "exit_codes": exit_codes_table(),
             "quality": quality_table()}  # fmt: skip
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown."""
    head = list(head)
    lines = [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def options_page() -> str:
    """All options of all commands, by group."""
    parts = ["## qsmxt\n", *_groups(build_parser())]
    parts += ["## qsmxt-demo\n", *_groups(demo.build_parser())]
    parts += ["## qsmxt-cluster\n", *_groups(cluster.build_parser())]
    parts += ["## qsmxt-tui\n", *_groups(tui.build_parser())]
    for command, parser in _commands(convert.build_parser()).items():
        parts += [f"## qsmxt-convert {command}\n", *_groups(parser)]
    return "\n".join(parts)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _groups(parser: argparse.ArgumentParser) -> Iterable[str]:
    for group in parser._action_groups:
        rows = [(_names(action), _told(action.help)) for action in group._group_actions if _is_shown(action)]
        if rows:
            yield f"### {str(group.title).capitalize()}\n"
            yield table(("option", "meaning"), rows)


def _is_shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS


def _told(text: str | None) -> str:
    return (text or "").replace("%%", "%").replace("*", "\\*").replace("<", "&lt;")


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    names = [text for text in action.option_strings if "_" not in text]
    if action.nargs == 0:
        return ", ".join(f"`{name}`" for name in names)
    words = action.metavar if isinstance(action.metavar, tuple) else (action.metavar or action.dest.upper(),)
    if action.choices and not action.metavar:
        words = ("{" + ",".join(map(str, action.choices)) + "}",)
    more = " ..." if action.nargs in ("+", "*") else ""
    return ", ".join(f"`{name}`" for name in names) + f" `{' '.join(words)}{more}`"


def methods_page() -> str:
    """All methods by stage, each with model, parameters, cost, references and its function with an example."""
    parts = []
    for stage in STAGES:
        methods = catalogue()[stage.key]
        if methods:
            parts.append(f"## {stage.title}\n")
            parts += [_method_text(method) for method in methods.values()]
    return "\n".join(parts)


def _method_text(method: CataloguedMethod) -> str:
    cost = method.cost
    parts = [
        f"({method.stage}-{method.key})=\n### {method.title} (`{method.key}`)\n",
        _model(method),
        f"Takes {_arrays(method.consumes)}"
        + (f"; can use {_arrays(method.optional)}" if method.optional else "")
        + f"; makes {_arrays(method.produces)}."
        + (" Takes arrays of CuPy and PyTorch, too." if method.on_device else "")
        + ("" if method.status == "stable" else f" **{method.status.capitalize()}.**")
        + "\n",
    ]
    if method.declarations:
        head = ("option", "default", "unit", "bounds", "meaning")
        parts.append(table(head, (_parameter_row(method, declared) for declared in method.declarations)))
    parts.append(
        f"Memory {cost.bytes_per_voxel:g} bytes a voxel"
        + (f", {cost.bytes_per_echo:g} more for every echo" if cost.bytes_per_echo else "")
        + f"; about {cost.seconds_per_megavoxel:g} s of processor time per million voxels.\n"
    )
    known = bibliography()
    parts += [f"- {known[key].text()}" for key in method.references if key in known]
    parts.append(f"\n```{{eval-rst}}\n.. autofunction:: {method.function.__module__}.{method.key}\n```\n")
    return "\n".join(parts) + "\n"


def _arrays(names: Iterable[str]) -> str:
    return ", ".join(f"{ARTIFACTS[name].description} ({ARTIFACTS[name].unit})" for name in names)


def _parameter_row(method: CataloguedMethod, declared: DeclaredParameter) -> tuple[str, ...]:
    rules = declared.declared
    # steps of a mask are written in its grammar, not as options
    shown = (
        declared.name
        if method.stage == "masking"
        else f"--{method.stage}-{hyphened(method.key)}-{hyphened(declared.name)}"
    )
    default = " ".join(map(str, declared.default)) if isinstance(declared.default, tuple) else str(declared.default)
    return f"`{shown}`", f"`{default or 'none'}`", rules.unit, _told(rules.bounds_text()), _told(rules.help)


def _model(method: CataloguedMethod) -> str:
    """The docstring of the method's module, as reStructuredText, with headings that stay below the page's."""
    found = importlib.util.find_spec(method.function.__module__)
    if found is None or found.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    body = "\n".join(text.splitlines()[1:]).strip("\n")
    return f"```````{{eval-rst}}\n{_without_headings(body)}\n```````\n" if body else ""


def _without_headings(text: str) -> str:
    lines = text.splitlines()
    kept: list[str] = []
    for line in lines:
        is_underline = (len(line) >= 3 and set(line) <= {"-"}) or (set(line) == {"="} and len(line) >= 3)
        if is_underline and kept and kept[-1].strip():
            kept[-1] = f"**{kept[-1].strip()}**"
            kept.append("")
        else:
            kept.append(line)
    return "\n".join(kept)


def presets_page() -> str:
    """What every preset sets."""
    parts = []
    for name, description in config.preset_descriptions().items():
        text = (config.PRESETS_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
        tomllib.loads(text)
        parts.append(f"## {name}\n\n{description[:1].upper()}{description[1:]}.\n\n```toml\n{text.strip()}\n```\n")
    return "\n".join(parts)


def outputs_table() -> str:
    """Images that a run can write, by their names."""
    rows = []
    for artifact in ARTIFACTS.values():
        if artifact.suffix:
            desc = f"_desc-{artifact.desc}" if artifact.desc else ""
            rows.append((f"`{desc}_{artifact.suffix}.nii.gz`", artifact.unit, artifact.description))
    return table(("ending", "unit", "content"), rows)


def exit_codes_table() -> str:
    """Exit codes."""
    rows = [(0, "Everything was done."), *sorted(error_codes().items())]
    return table(("code", "meaning"), rows)


def quality_table() -> str:
    """Quality metrics with their usual and usable ranges, and what to do outside of them."""
    rows = [
        (f"`{m.key}`", m.title, m.unit, m.meaning, range_text(m.good), range_text(m.fair), " ".join((m.low, m.high)))
        for m in METRICS
    ]
    return table(("column", "name", "unit", "meaning", "usual", "usable", "what to do"), rows)
