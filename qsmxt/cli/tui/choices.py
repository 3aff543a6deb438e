"""What was chosen, and the command that says the same; all on offer comes from the settings and the catalogue."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qsmxt import config
from qsmxt.cli.arguments import stage_option
from qsmxt.cli.options import hyphened
from qsmxt.errors import ParameterError
from qsmxt.registry.catalogue import catalogue
from qsmxt.registry.methods import DeclaredParameter, declared_fields
from qsmxt.registry.stages import STAGES

#: Images that a mask can be made of.
MASK_IMAGES = ("magnitude:first", "magnitude:rss", "magnitude:corrected", "phase-quality", "fit-quality")


@dataclass
class Choices:
    """Everything that can be chosen; what is empty is as the preset says.

    Attributes
    ----------
    bids_dir, out_dir, work_dir
        Folders; without an output folder it lies next to the dataset.
    participants
        Labels without ``sub-``; all if empty.
    preset
        Its name.
    outputs
        Switches that differ from their default.
    mask_image, mask_method, mask_more
        Parts of a mask section.
    methods
        Stage -> method.
    more
        Further options, as on a command line.
    """

    bids_dir: str = ""
    out_dir: str = ""
    work_dir: str = ""
    participants: tuple[str, ...] = ()
    preset: str = config.DEFAULT_PRESET
    outputs: dict[str, bool] = field(default_factory=dict)
    mask_image: str = ""
    mask_method: str = ""
    mask_more: str = ""
    methods: dict[str, str] = field(default_factory=dict)
    more: str = ""

    @property
    def mask(self) -> str:
        """The mask section; empty if the preset's mask stays."""
        if not self.mask_image or not self.mask_method:
            return ""
        return ",".join(part for part in (self.mask_image, self.mask_method, self.mask_more.strip()) if part)

    def words(self) -> list[str]:
        """The arguments of ``qsmxt``."""
        bids = self.bids_dir.rstrip("/") or "BIDS"
        words = [bids, self.out_dir or f"{bids}-qsm", "participant"]
        words += ["--participant-label", *self.participants] if self.participants else []
        words += ["-w", self.work_dir or f"{bids}-work"]
        words += ["--preset", self.preset] if self.preset != config.DEFAULT_PRESET else []
        for declared in output_switches():
            wanted = self.outputs.get(declared.name, declared.default)
            if wanted != declared.default:
                words.append(f"--{'' if wanted else 'no-'}{hyphened(declared.name)}")
        words += ["--mask", self.mask] if self.mask else []
        for stage, key in self.methods.items():
            if key and key != preset_methods(self.preset).get(stage):
                words += [stage_option(stage), key]
        return [*words, *shlex.split(self.more)]

    def command(self) -> str:
        """The whole command, as one would type it."""
        return shlex.join(["qsmxt", *self.words()])


def output_switches() -> tuple[DeclaredParameter, ...]:
    """What can be made."""
    return declared_fields(config.OutputSettings)


def stages() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Key and title of every stage that has a choice, with its methods: title and key."""
    found = []
    for stage in STAGES:
        methods = catalogue()[stage.key]
        if methods and stage.key not in config._SECTIONS:
            offered = [(f"{method.title} ({key})", key) for key, method in methods.items()]
            if config.NO_METHOD not in methods:
                offered.append((f"nothing ({config.NO_METHOD})", config.NO_METHOD))
            found.append((stage.key, stage.title, offered))
    return found


def mask_methods() -> list[tuple[str, str]]:
    """Methods that make a mask from an image: title and key."""
    made = [m for m in catalogue()["masking"].values() if "mask" in m.produces and "mask" not in m.consumes]
    return [(f"{method.title} ({method.key})", method.key) for method in made]


def preset_layer(preset: str) -> Mapping[str, Any]:
    """Settings of a preset."""
    return config.merge(config.read_preset(config.DEFAULT_PRESET), config.read_preset(preset))


def preset_methods(preset: str) -> dict[str, str]:
    """Method of every stage in a preset."""
    layer = preset_layer(preset)
    return {key: layer.get(key, {}).get("method", config.NO_METHOD) for key, _, _ in stages()}


def problem(choices: Choices) -> str:
    """What is wrong with the choices, in words; empty if nothing is."""
    from qsmxt.registry.mask_sections import parse_section

    try:
        shlex.split(choices.more)
        if choices.mask:
            parse_section(choices.mask)
    except (ParameterError, ValueError) as error:
        return str(error)
    return "" if choices.bids_dir else "choose a dataset"
