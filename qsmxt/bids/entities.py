"""BIDS entities: short and long names, their order in a file name, and the labels they may carry."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qsmxt.errors import InputError

#: ``(short, long)`` in the order in which BIDS 1.11 wants them in a file name.
ENTITIES: tuple[tuple[str, str], ...] = (
    ("tpl", "template"), ("sub", "subject"), ("cohort", "cohort"), ("ses", "session"), ("sample", "sample"),
    ("task", "task"), ("tracksys", "tracksys"), ("acq", "acquisition"), ("nuc", "nucleus"), ("voi", "volume"),
    ("ce", "ceagent"), ("trc", "tracer"), ("stain", "staining"), ("rec", "reconstruction"), ("dir", "direction"),
    ("run", "run"), ("mod", "modality"), ("echo", "echo"), ("flip", "flip"), ("inv", "inversion"),
    ("mt", "mtransfer"), ("part", "part"), ("proc", "proc"), ("hemi", "hemisphere"), ("space", "space"),
    ("split", "split"), ("recording", "recording"), ("chunk", "chunk"), ("atlas", "atlas"), ("seg", "segmentation"),
    ("scale", "scale"), ("res", "resolution"), ("den", "density"), ("from", "from"), ("to", "to"),
    ("mode", "mode"), ("label", "label"), ("desc", "description"),
)  # fmt: skip

LONG_NAMES = dict(ENTITIES)
SHORT_NAMES = {long: short for short, long in ENTITIES}
_ORDER = {long: position for position, (_, long) in enumerate(ENTITIES)}

_LABEL = re.compile(r"[A-Za-z0-9+]+")


def long_name(name: str) -> str:
    """Long name of an entity given by either name; an unknown name is returned as it is."""
    return LONG_NAMES.get(name, name)


def is_label(text: str) -> bool:
    """Whether ``text`` can be the label of an entity (letters, digits and ``+``)."""
    return _LABEL.fullmatch(text) is not None


def strip_prefix(label: str, prefix: str) -> str:
    """``label`` without a leading ``prefix-`` (``sub-01`` and ``01`` mean the same)."""
    text = str(label).strip()
    return text.removeprefix(f"{prefix}-")


def parse_name(filename: str) -> tuple[dict[str, str], str, str]:
    """Entities (long names, in the order of the name), suffix and extension of a file name.

    >>> parse_name("sub-1_echo-01_part-phase_MEGRE.nii.gz")
    ({'subject': '1', 'echo': '01', 'part': 'phase'}, 'MEGRE', '.nii.gz')
    """
    stem, dot, extension = filename.partition(".")
    *pairs, suffix = stem.split("_")
    entities = {}
    for pair in pairs:
        key, dash, label = pair.partition("-")
        if dash:
            entities[long_name(key)] = label
    return entities, suffix, dot + extension


def in_order(entities: Mapping[str, str]) -> dict[str, str]:
    """The same entities in BIDS order; unknown ones come last."""
    return dict(sorted(entities.items(), key=lambda item: (_ORDER.get(item[0], len(_ORDER)), item[0])))


def stem(entities: Mapping[str, str], suffix: str) -> str:
    """File name without extension, entities in BIDS order.

    Raises
    ------
    InputError
        If a label or the suffix holds anything but letters, digits and ``+``.
    """
    ordered = in_order(entities)
    for name, label in {**ordered, "suffix": suffix}.items():
        if not is_label(label):
            raise InputError(f"{name}: expected a label of letters and digits, found {label!r}; rename the file")
    return "_".join([*(f"{SHORT_NAMES.get(name, name)}-{label}" for name, label in ordered.items()), suffix])
