"""Regions that susceptibility can be referred to: found in other derivatives, or made of the images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from qsmxt.bids.entities import parse_name
from qsmxt.bids.units import ProcessingUnit
from qsmxt.errors import InputError, MissingInputError
from qsmxt.interfaces.acquisition import REGION_FILES
from qsmxt.registry.catalogue import catalogue
from qsmxt.registry.methods import Method
from qsmxt.workflows.masks import fitting

_FILES = {array: file for file, array in REGION_FILES.items()}


def find_regions(unit: ProcessingUnit, chosen: Iterable[Method], derivatives: Mapping[str, Path]) -> dict[str, Path]:
    """Files of the regions that the chosen methods need or can use, by their names among the masks of a plan.

    The fluid is a mask ``label-CSF_mask`` or ``desc-csf_mask``, the labels are the only ``dseg`` image; both on the
    grid of the gradient echo, which is that of images without ``space-``.

    Raises
    ------
    MissingInputError
        If labels are needed and there are none.
    InputError
        If there are several images of labels.
    """
    chosen = list(chosen)
    needed = {name for method in chosen for name in method.consumes}
    usable = needed | {name for method in chosen for name in method.optional}
    found = {}
    fluid = _fluid(unit, derivatives) if "csf_mask" in usable else []
    if fluid:
        found[_FILES["csf_mask"]] = fluid[0]
    if "labels" in needed:
        found[_FILES["labels"]] = _labels(unit, derivatives)
    return found


def with_fluid(unit: ProcessingUnit, chosen: list[Method], found: Mapping[str, Path]) -> list[Method]:
    """``chosen`` with the method that finds the fluid, if one of them needs it and no mask of it was ``found``.

    Raises
    ------
    InputError
        If the unit has one echo, in which fluid cannot be told from tissue.
    """
    users = [method.name for method in chosen if "csf_mask" in method.consumes]
    if not users or _FILES["csf_mask"] in found:
        return chosen
    if len(unit.echoes) < 2:
        raise InputError(
            f"{unit.name}: {users[0]} expected several echoes, which tell fluid from tissue, found one; "
            "give a mask label-CSF_mask in --derivatives, or choose another reference"
        )
    return [*chosen, next(method for method in catalogue()["masking"].values() if "csf_mask" in method.produces)]


def _fluid(unit: ProcessingUnit, derivatives: Mapping[str, Path]) -> list[Path]:
    found = []
    for folder in derivatives.values():
        for path in fitting(unit, folder, "mask"):
            entities, _, _ = parse_name(path.name)
            told = entities.get("label", entities.get("description", ""))
            if told.lower() == "csf":
                found.append(path)
    return found


def _labels(unit: ProcessingUnit, derivatives: Mapping[str, Path]) -> Path:
    found = [path for folder in derivatives.values() for path in fitting(unit, folder, "dseg")]
    if not found:
        raise MissingInputError(
            f"{unit.name}: expected a dseg image on the grid of the gradient echo in --derivatives, found none; "
            "make one with --segmentation, and give its output folder as --derivatives"
        )
    if len(found) > 1:
        raise InputError(
            f"{unit.name}: expected one dseg image in --derivatives, found {', '.join(p.name for p in found)}; "
            "give a folder that holds only the one to refer to"
        )
    return found[0]
