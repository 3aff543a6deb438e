"""Masks that exist in other derivatives of the dataset: those of a unit, by the rules of BIDS names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qsmxt.bids.entities import parse_name
from qsmxt.bids.outputs import derivative_entities
from qsmxt.bids.units import ProcessingUnit
from qsmxt.errors import MissingInputError
from qsmxt.interfaces.acquisition import T1W_FILE

#: The name in ``mask:NAME`` that means all derivatives that were given.
ANY = "derivatives"

_IGNORED = ("description", "label", "space", "part", "echo", "atlas", "segmentation")


def named_masks(sections: Sequence[str]) -> list[str]:
    """Names that sections ask for as ``mask:NAME``."""
    inputs = [section.partition(",")[0].strip().partition(":") for section in sections]
    return list(dict.fromkeys(name for source, _, name in inputs if source == "mask" and name))


def find_masks(unit: ProcessingUnit, sections: Sequence[str], derivatives: Mapping[str, Path]) -> dict[str, Path]:
    """The mask file for every name that the sections ask for.

    A mask fits if its entities are among those of the unit, it lies in the unit's own space and, where it has a
    ``label``, that is ``brain``. Of several, one described as ``brain`` comes first, then the first by name. Where a
    section looks at ``t1w``, the T1-weighted image is found as well, as ``input:t1w``.

    Raises
    ------
    MissingInputError
        If there are no derivatives of that name, no mask of the unit in them, or no T1-weighted image for ``t1w``.
    """
    found = {}
    for name in named_masks(sections):
        folders = list(derivatives.values()) if name == ANY else [derivatives[name]] if name in derivatives else []
        if not folders:
            raise MissingInputError(
                f"mask:{name}: expected derivatives of that name, found {', '.join(derivatives) or 'none'}; "
                f"give --derivatives {name}=PATH"
            )
        fitting = [path for folder in folders for path in _fitting(unit, folder)]
        if not fitting:
            raise MissingInputError(
                f"{unit.name}: expected a mask in {', '.join(str(folder) for folder in folders)}, found none that fits"
            )
        found[name] = fitting[0]
    if any(source_of(section) == "t1w" for section in sections):
        found[T1W_FILE] = _t1w(unit)
    return found


def source_of(section: str) -> str:
    """The input that a section looks at."""
    return section.partition(",")[0].partition(":")[0].strip().lower()


def _t1w(unit: ProcessingUnit) -> Path:
    """The first T1-weighted image of the unit's session, else of its subject."""
    if not unit.t1w:
        raise MissingInputError(
            f"{unit.name}: a mask section looks at t1w, expected a T1w image of the subject, found none; "
            "choose another input"
        )
    same = [path for path in unit.t1w if parse_name(path.name)[0].get("session") == unit.session]
    return (same or list(unit.t1w))[0]


def _fitting(unit: ProcessingUnit, folder: Path) -> list[Path]:
    """Masks of the brain, that described so first."""
    masks = [
        path for path in fitting(unit, folder, "mask") if parse_name(path.name)[0].get("label", "brain") == "brain"
    ]
    return sorted(masks, key=lambda path: parse_name(path.name)[0].get("description") != "brain")


def fitting(unit: ProcessingUnit, folder: Path, suffix: str) -> list[Path]:
    """Images of ``suffix`` in ``folder`` that belong to ``unit`` and lie in its own space, its session's first."""
    subject = folder / f"sub-{unit.subject}"
    places = [subject / f"ses-{unit.session}" / "anat"] if unit.session is not None else []
    places.append(subject / "anat")
    return [path for place in places for path in sorted(place.glob(f"*_{suffix}.nii*")) if _fits(path, unit)]


def _fits(path: Path, unit: ProcessingUnit) -> bool:
    entities, _, _ = parse_name(path.name)
    own = [unit.entities, derivative_entities(unit)]
    if entities.get("space", "orig") != "orig":
        return False
    compared = {name: label for name, label in entities.items() if name not in _IGNORED}
    return any(all(labels.get(name) == label for name, label in compared.items()) for labels in own)
