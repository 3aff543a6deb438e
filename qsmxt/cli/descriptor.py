"""The Boutiques descriptor ``boutiques.json``, written from the command line's own parser.

``python -m qsmxt.cli.descriptor --write`` writes it; without ``--write`` the exit code is 1 if it is out of date.
It follows schema 0.5 and the rules of ``bosh validate --bids``. Defaults stand in the descriptions: a
``default-value`` would be put on every command line and so win over presets and settings files.
"""

from __future__ import annotations

import argparse
import json
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qsmxt import __version__, errors
from qsmxt.cli.arguments import AppendSection, build_parser
from qsmxt.cli.options import StoreSetting
from qsmxt.registry.methods import DeclaredParameter

#: The generated file, in the root of a checkout.
DESCRIPTOR_FILE = Path(__file__).resolve().parents[2] / "boutiques.json"

#: Options that print something and stop.
INFORMING = ("--help", "--version", "--help-methods")

#: Options that name something that must be there.
_FILES = ("bids_filter_file", "config_file", "derivatives", "use_plugin", "template_dir", "source_dicom")

_COMMAND = "mkdir -p [OUTPUT_DIR]; qsmxt [BIDS_DIR] [OUTPUT_DIR] [ANALYSIS_LEVEL] [PARTICIPANT_LABEL] [SESSION_LABEL]"

#: Codes of the command line that no exception class has.
_CODES = {2: "The command line is wrong.", 130: "Interrupted; the same command continues."}

Entry = dict[str, Any]


def generate() -> str:
    """Text of the descriptor."""
    return json.dumps(build_descriptor(), indent=2, ensure_ascii=False) + "\n"


def build_descriptor() -> Entry:
    """The descriptor of ``qsmxt``."""
    parser = build_parser()
    options = [describe_option(action) for action in option_actions(parser)]
    first = ("participant_label", "session_label")
    options.sort(key=lambda entry: first.index(entry["id"]) if entry["id"] in first else len(first))
    keys = [entry["value-key"] for entry in options if entry["id"] not in first]
    return {
        "name": "QSMxT",
        "tool-version": __version__,
        "schema-version": "0.5",
        "description": parser.description,
        "author": "The QSMxT developers",
        "url": "https://github.com/QSMxT/QSMxT",
        "tool-doi": "10.1002/mrm.29048",
        "command-line": f"{_COMMAND} {' '.join(keys)}",
        "container-image": {"type": "docker", "image": f"qsmxt/qsmxt:{__version__}"},
        "inputs": [*_positionals(), *options],
        "groups": [
            {
                "id": "output_directory",
                "name": "Folder of the derivatives, new or present",
                "members": ["output_dir", "output_dir_present"],
                "mutually-exclusive": True,
                "one-is-required": True,
            }
        ],
        "output-files": [
            {"id": "output", "name": "Derivatives", "path-template": "[OUTPUT_DIR]", "optional": False},
        ],
        "suggested-resources": {"cpu-cores": 4, "ram": 8, "disk-space": 5, "walltime-estimate": 1800},
        "error-codes": [{"code": code, "description": text} for code, text in sorted(error_codes().items())],
        "tags": {"domain": ["neuroinformatics", "mri"], "purpose": ["quantitative susceptibility mapping"]},
        "tests": _tests(),
        "custom": {"BIDSApplicationVersion": __version__, "cbrain:readonly-input-files": True},
    }


def option_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All options that change what is done."""
    for action in parser._actions:
        if action.option_strings and long_name(action) not in INFORMING:
            yield action


def long_name(action: argparse.Action) -> str:
    """The name of an option that the documentation uses: its first long one."""
    return next(text for text in action.option_strings if text.startswith("--"))


def describe_option(action: argparse.Action) -> Entry:
    """The input of one option."""
    name = long_name(action)
    key = name[2:].replace("-", "_")
    entry: Entry = {
        "id": key,
        "name": name[2:].replace("-", " "),
        "description": _description(action, name),
        "value-key": f"[{key.upper()}]",
        "command-line-flag": name,
        "optional": True,
    }
    if action.nargs == 0:
        return {**entry, "type": "Flag"}
    if isinstance(action, StoreSetting):
        return {**entry, **_setting(action.declared), **_file(key), **_list(action, name)}
    kind = {"type": "Number"} if action.type in (int, float) else {"type": "String"}
    choices = {"value-choices": list(action.choices)} if action.choices else {}
    return {**entry, **kind, **choices, **_file(key), **_list(action, name)}


def _positionals() -> list[Entry]:
    output = {"value-key": "[OUTPUT_DIR]", "optional": True}
    return [
        {
            "id": "bids_dir", "name": "BIDS dataset", "type": "File", "optional": False, "value-key": "[BIDS_DIR]",
            "description": "Root of the BIDS dataset.",
        },
        {
            "id": "output_dir", "name": "New folder of the derivatives", "type": "String", **output,
            "description": "Folder that is made for the derivatives.",
        },
        {
            "id": "output_dir_present", "name": "Present folder of the derivatives", "type": "File", **output,
            "description": "Folder that holds derivatives of participants, for the group level or to go on.",
        },
        {
            "id": "analysis_level", "name": "Analysis level", "type": "String", "optional": False, "list": True,
            "value-choices": ["participant", "group"], "value-key": "[ANALYSIS_LEVEL]",
            "description": "participant: make maps; group: gather what is there.",
        },
    ]  # fmt: skip


def _description(action: argparse.Action, name: str) -> str:
    if not isinstance(action, StoreSetting):
        return (action.help or name).replace("%%", "%")
    declared = action.declared
    text = declared.declared.help or _shown(action) or name
    if action.nargs == 0:
        return text if action.value else f"Switches off: {text}"
    unit = declared.declared.unit if declared.declared.unit not in ("1", "") else ""
    facts = [f"in {unit}" if unit else "", declared.declared.bounds_text()]
    if declared.default not in (None, ()) and "default" not in text:
        facts.append(f"default: {_plain(declared.default)}")
    told = "; ".join(fact for fact in facts if fact)
    return f"{text} ({told})" if told else text


def _shown(action: argparse.Action) -> str:
    return "" if action.help in (None, argparse.SUPPRESS) else str(action.help).replace("%%", "%")


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _setting(declared: DeclaredParameter) -> Entry:
    """Type, choices and bounds of a declared setting."""
    rules = declared.declared
    kind = _element(declared.type)
    if rules.choices:
        return {"type": "String", "value-choices": list(rules.choices)}
    if kind not in (int, float) or rules.auto:
        return {"type": "String"}
    entry: Entry = {"type": "Number"}
    if kind is int:
        entry["integer"] = True
    for edge, exclusive, inclusive in (
        ("minimum", rules.above, rules.at_least),
        ("maximum", rules.below, rules.at_most),
    ):
        if exclusive is not None:
            entry |= {edge: exclusive, f"exclusive-{edge}": True}
        elif inclusive is not None:
            entry[edge] = inclusive
    return entry


def _element(kind: Any) -> Any:
    """The type of one element: ``float`` of ``tuple[float, ...] | None``; ``str`` if there are several."""
    if typing.get_origin(kind) is tuple:
        return _element(typing.get_args(kind)[0])
    kinds = [option for option in typing.get_args(kind) if option is not type(None)]
    if not kinds:
        return kind
    return _element(kinds[0]) if len(kinds) == 1 else str


def _file(key: str) -> Entry:
    return {"type": "File"} if key in _FILES else {}


def _list(action: argparse.Action, name: str) -> Entry:
    if isinstance(action, AppendSection):
        return {"list": True, "list-separator": f" {name} "}
    if action.nargs in ("+", "*"):
        return {"list": True}
    if isinstance(action.nargs, int) and action.nargs > 1:
        return {"list": True, "min-list-entries": action.nargs, "max-list-entries": action.nargs}
    return {}


def error_codes() -> dict[int, str]:
    """Exit codes and what they mean."""
    found = dict(_CODES)
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.QSMxTError) and value is not errors.QSMxTError:
            found[value.exit_code] = (value.__doc__ or "").strip().splitlines()[0]
    found[errors.QSMxTError.exit_code] = "At least one participant failed; the others are complete."
    return found


def _tests() -> list[Entry]:
    """What a platform can run: a plan of one participant, and a folder that is not there."""
    call = {"bids_dir": "demo-out/bids", "output_dir": "out", "analysis_level": ["participant"]}
    return [
        {
            "name": "plan",
            "invocation": {**call, "participant_label": ["01"], "dry_run": True},
            "assertions": {"exit-code": 0},
        },
        {
            "name": "missing dataset",
            "invocation": {**call, "bids_dir": "nowhere"},
            "assertions": {"exit-code": errors.MissingInputError.exit_code},
        },
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """``--write`` rewrites the descriptor; without it, exit 1 if it is out of date."""
    given = sys.argv[1:] if arguments is None else arguments
    fresh = generate()
    stored = DESCRIPTOR_FILE.read_text(encoding="utf-8") if DESCRIPTOR_FILE.is_file() else ""
    if "--write" in given:
        if fresh != stored:
            DESCRIPTOR_FILE.write_text(fresh, encoding="utf-8")
        return 0
    if fresh != stored:
        print(f"{DESCRIPTOR_FILE} is out of date; run: python -m qsmxt.cli.descriptor --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
