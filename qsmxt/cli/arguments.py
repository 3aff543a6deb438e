"""The command line of the BIDS App, derived from the settings and the catalogue of methods.

Importing this module, and asking for help or the version, imports no array library and no workflow engine.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsmxt import __version__, config
from qsmxt.cli.options import Formatter, Parser, StoreSetting, describe_stage, hyphened, put, setting_arguments
from qsmxt.registry.catalogue import CataloguedMethod, catalogue
from qsmxt.registry.methods import DeclaredParameter, Param, declared_fields
from qsmxt.registry.stages import STAGES

LEVELS = ("participant", "group")

#: Bytes of a unit of memory.
_MEMORY_UNITS = {"": 1e6, "B": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}

#: Settings whose flags are written out below instead of being derived.
_WRITTEN_OUT = {
    ("execution", "mem_gb"),
    ("execution", "plugin_file"),
    ("execution", "nprocs"),
    ("masking", "sections"),
    ("group", "models"),
}


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    bids_dir: Path
    out_dir: Path
    levels: tuple[str, ...]
    participants: tuple[str, ...] | None = None
    sessions: tuple[str, ...] | None = None
    filter_file: Path | None = None
    database_dir: Path | None = None
    derivatives: dict[str, Path] = field(default_factory=dict)
    work_dir: Path = Path("work")
    config_file: Path | None = None
    preset: str | None = None
    skip_validation: bool = False
    dry_run: bool = False
    verbosity: int = 0
    flags: dict[str, Any] = field(default_factory=dict)


class AppendSection(argparse.Action):
    """Collect mask sections."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Called by argparse."""
        sections = namespace.flags.get("masking", {}).get("sections", ())
        put(namespace.flags, ("masking", "sections"), (*sections, values))


class ShowMethods(argparse.Action):
    """Print all methods of a stage, or of all stages, with their parameters."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Called by argparse."""
        stages = [values] if values else list(catalogue())
        sys.stdout.write("\n".join(describe_stage(stage) for stage in stages if catalogue()[stage]))
        parser.exit()


def build_parser() -> Parser:
    """The parser of ``qsmxt``."""
    parser = Parser(
        prog="qsmxt",
        description="Quantitative susceptibility maps from a BIDS dataset of gradient-echo images.",
        epilog="Every parameter of every method is an option too: see --help-methods. Settings files (TOML) hold the "
        "same names; flags win over the file, the file over the preset.",
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.set_defaults(flags={})
    parser.add_argument("bids_dir", type=Path, help="root of the BIDS dataset")
    parser.add_argument("output_dir", type=Path, help="folder of the derivatives; several jobs may share it")
    parser.add_argument(
        "analysis_level", nargs="+", choices=LEVELS, help="participant: make maps; group: gather what is there"
    )
    parser.add_argument("--version", action="version", version=f"qsmxt {__version__}")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more; twice: everything")
    parser.add(
        parser, "--help-methods", nargs="?", action=ShowMethods, choices=list(catalogue()), metavar="STAGE",
        help="list the methods of a stage, or of all, with their parameters",
    )  # fmt: skip
    _add_selection(parser)
    _add_settings_options(parser)
    _add_group(parser)
    _add_execution(parser)
    _add_methods(parser)
    return parser


def _add_selection(parser: Parser) -> None:
    group = parser.add_argument_group("what is processed")
    add = parser.add
    add(group, "--participant-label", nargs="+", metavar="LABEL", help="only these subjects, with or without sub-")
    add(group, "--session-label", "--session-id", nargs="+", metavar="LABEL", help="only these sessions")
    add(group, "--bids-filter-file", type=Path, metavar="JSON", help="entity filters by query: qsm, t1w")
    add(group, "--bids-database-dir", type=Path, metavar="DIR", help="pybids index to use, made if it is not there")
    add(
        group, "-d", "--derivatives", nargs="+", action="extend", metavar="[NAME=]PATH",
        help="other derivatives of the same dataset",
    )  # fmt: skip
    add(
        group, "--skip-bids-validation", "--skip-bids-validator", action="store_true",
        help="do not run the BIDS validator first",
    )  # fmt: skip


def _add_settings_options(parser: Parser) -> None:
    group = parser.add_argument_group("settings")
    presets = "; ".join(f"{name}: {text}" if text else name for name, text in config.preset_descriptions().items())
    parser.add(group, "--preset", choices=config.preset_names(), help=presets.replace("%", "%%"))
    parser.add(group, "--config-file", type=Path, metavar="TOML", help="settings; logs/qsmxt.toml of a run repeats it")
    parser.add(
        group, "--mask", action=AppendSection, metavar="SECTION",
        help="how the mask is made, such as magnitude:first,bet:0.5,erode:2; may be repeated, see --mask-combine",
    )  # fmt: skip
    _add_section(parser, group, "masking", prefix="mask-")
    for section in ("acquisition", "outputs", "segmentation"):
        _add_section(parser, group, section)


def _add_group(parser: Parser) -> None:
    group = parser.add_argument_group("group level")
    models = next(d for d in declared_fields(config.GroupSettings) if d.name == "models")
    parser.add(
        group, "--model", "--group-models", nargs="+", action=StoreSetting, path=("group", "models"), declared=models,
        metavar="FORMULA", help=models.declared.help, default=argparse.SUPPRESS,
    )  # fmt: skip
    _add_section(parser, group, "group", prefix="group-")


def _add_execution(parser: Parser) -> None:
    group = parser.add_argument_group("resources")
    nprocs = next(d for d in declared_fields(config.ExecutionSettings) if d.name == "nprocs")
    parser.add(
        group, "--nprocs", "--n-cpus", "--nthreads", action=StoreSetting, path=("execution", "nprocs"),
        declared=nprocs, metavar="N", help=nprocs.declared.help, default=argparse.SUPPRESS,
    )  # fmt: skip
    parser.add(
        group, "--mem", "--mem-mb", type=_memory, metavar="SIZE",
        help="most memory in use at once, such as 8G; a bare number is in MB",
    )  # fmt: skip
    parser.add(group, "--mem-gb", type=float, metavar="GB", help="the same in GB")
    _add_section(parser, group, "execution")
    parser.add(
        group, "--use-plugin", "--nipype-plugin-file", type=Path, metavar="YAML",
        help="nipype plugin and its plugin_args",
    )  # fmt: skip
    parser.add(group, "-w", "--work-dir", type=Path, default=Path("work"), help="intermediate results (./work)")
    parser.add(group, "--dry-run", action="store_true", help="print what would run, with memory and time, and stop")


def _add_section(parser: Parser, group: Any, section: str, prefix: str = "") -> None:
    """Flags of all settings of a section that are not written out."""
    for declared in declared_fields(config._SECTIONS[section]):
        if (section, declared.name) not in _WRITTEN_OUT:
            name = f"--{prefix}{hyphened(declared.name)}"
            for option, keywords in setting_arguments(name, (section, declared.name), declared):
                parser.add(group, option, **keywords)


def _add_methods(parser: Parser) -> None:
    group = parser.add_argument_group("methods of the stages")
    defaults = config.default_table()
    for stage in STAGES:
        methods = catalogue()[stage.key]
        if not methods or stage.key in config._SECTIONS:
            continue
        choices = tuple(dict.fromkeys((*methods, config.NO_METHOD)))
        default = defaults.get(stage.key, {}).get("method", config.NO_METHOD)
        declared = _choice(choices)
        parser.add(
            group, stage_option(stage.key), action=StoreSetting, path=(stage.key, "method"), declared=declared,
            metavar="METHOD", default=argparse.SUPPRESS,
            help=f"{stage.title.lower()}: {', '.join(choices)} (default: {default})",
        )  # fmt: skip
        for method in methods.values():
            _add_parameters(parser, group, method)


def stage_option(stage: str) -> str:
    """The option that chooses the method of a stage; where the stage is also an output, that has the plain name."""
    outputs = {declared.name for declared in declared_fields(config.OutputSettings)}
    return f"--{stage}-method" if stage in outputs else f"--{stage}"


def _choice(choices: Iterable[str]) -> DeclaredParameter:
    return DeclaredParameter("method", str, None, Param("", choices=tuple(choices)))


def _add_parameters(parser: Parser, group: Any, method: CataloguedMethod) -> None:
    for declared in method.declarations:
        name = f"--{method.stage}-{hyphened(method.key)}-{hyphened(declared.name)}"
        path = (method.stage, method.key, declared.name)
        for option, keywords in setting_arguments(name, path, declared, hidden=True):
            parser.add(group, option, **keywords)


def _memory(text: str) -> float:
    """Memory in GB of text such as ``8G``, ``800M`` or ``8000`` (MB)."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([BKMGT]?)B?\s*", text.upper())
    if match is None or float(match.group(1)) <= 0:
        raise argparse.ArgumentTypeError(f"expected a size such as 8G, 800M or 8000 (MB), found {text!r}")
    return float(match.group(1)) * _MEMORY_UNITS[match.group(2)] / 1e9


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Options of a command line; exits with 2 if it is wrong."""
    parser = build_parser()
    # argparse never lets positionals follow an option that takes several values; BIDS Apps are called like that
    namespace = parser.parse_intermixed_args(arguments)
    if namespace.mem is not None:
        put(namespace.flags, ("execution", "mem_gb"), namespace.mem)
    if namespace.mem_gb is not None:
        put(namespace.flags, ("execution", "mem_gb"), namespace.mem_gb)
    if namespace.use_plugin is not None:
        put(namespace.flags, ("execution", "plugin_file"), str(namespace.use_plugin))
    _check_folders(parser, namespace)
    return Options(
        bids_dir=namespace.bids_dir,
        out_dir=namespace.output_dir,
        levels=tuple(level for level in LEVELS if level in namespace.analysis_level),
        participants=_labels(namespace.participant_label, "sub-"),
        sessions=_labels(namespace.session_label, "ses-"),
        filter_file=namespace.bids_filter_file,
        database_dir=namespace.bids_database_dir,
        derivatives=_named_paths(parser, namespace.derivatives or []),
        work_dir=namespace.work_dir,
        config_file=namespace.config_file,
        preset=namespace.preset,
        skip_validation=namespace.skip_bids_validation,
        dry_run=namespace.dry_run,
        verbosity=namespace.verbose,
        flags=namespace.flags,
    )


def _labels(labels: Sequence[str] | None, prefix: str) -> tuple[str, ...] | None:
    if labels is None:
        return None
    return tuple(
        dict.fromkeys(label.removeprefix(prefix) for text in labels for label in text.replace(",", " ").split())
    )


def _check_folders(parser: Parser, namespace: argparse.Namespace) -> None:
    bids, out, work = (path.resolve() for path in (namespace.bids_dir, namespace.output_dir, namespace.work_dir))
    if out == bids:
        parser.error(f"output_dir: expected another folder than the dataset; try {bids / 'derivatives' / 'qsmxt'}")
    if work == bids or bids in work.parents:
        parser.error(f"--work-dir: expected a folder outside the dataset, found {work}; try {bids.parent / 'work'}")
    if work == out:
        parser.error(f"--work-dir: expected another folder than output_dir; try {out.parent / 'work'}")


def _named_paths(parser: Parser, values: Sequence[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for value in values:
        name, sign, path = value.partition("=")
        folder = Path(path if sign else value)
        name = name if sign else folder.resolve().name
        if name in named:
            parser.error(f"--derivatives: the name {name} is given twice; write NAME=PATH")
        if not folder.is_dir():
            parser.error(f"--derivatives: expected a folder, found {folder}")
        named[name] = folder
    return named
