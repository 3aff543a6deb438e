"""Outlines of labels on susceptibility: drawn when the page is made, as labels come from another branch of the run."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.bids.atomic import write_bytes
from qsmxt.bids.entities import parse_name
from qsmxt.reports.figures import Upright, mosaic, png, upright
from qsmxt.reports.quality import label_files
from qsmxt.reports.volumes import EXTENSION, Frame, label_volume

logger = logging.getLogger("qsmxt")

WINDOW = (-0.1, 0.1)


@dataclass(frozen=True)
class Outlined:
    """Labels on the grid of the susceptibility map.

    Attributes
    ----------
    name
        Of the atlas or method.
    title
        Of the picture.
    picture, volume
        Files of the picture and of the viewer's labels; the latter may be missing.
    names
        What the numbers of the viewer's labels mean, which are 1, 2, ... in the order of those of the atlas.
    """

    name: str
    title: str
    picture: str
    volume: str
    names: dict[str, str]


def outlined(out_dir: Path, files: Mapping[str, str], layout: Mapping[str, Any]) -> list[Outlined]:
    """Draw all labels on the grid of the susceptibility map; the ``layout`` of the viewer says what it shows of it."""
    if "chi" not in files:
        return []
    drawn = []
    for name in label_files(files):
        try:
            drawn.append(_draw(out_dir, files["chi"], name, layout))
        except (OSError, ValueError) as error:
            logger.warning("%s: labels cannot be drawn (%s)", name, error)
    return drawn


def _draw(out_dir: Path, chi: str, name: str, layout: Mapping[str, Any]) -> Outlined:
    import nibabel

    images = [nibabel.load(out_dir / file) for file in (chi, name)]
    arrays = [np.asanyarray(image.dataobj) for image in images]  # type: ignore[attr-defined]
    affine = images[0].affine  # type: ignore[attr-defined]
    shown, labels = (upright(array, affine) for array in arrays)
    if shown.array.shape != labels.array.shape:
        raise ValueError(f"expected the shape {shown.array.shape} of the map, found {labels.array.shape}")
    inside = Upright(labels.array > 0, labels.voxel_size)
    if not inside.array.any():
        raise ValueError("no label")
    relative = Path(name)
    target = f"{relative.parts[0]}/figures/{relative.name.partition('.')[0]}"
    write_bytes(out_dir / f"{target}.png", png(mosaic(shown, inside, WINDOW, contours=(labels,))))
    volume, numbers = "", np.unique(arrays[1][arrays[1] != 0])
    if layout.get("box"):
        volume = f"{target}{EXTENSION}"  # numbered in their order: a table of colours by atlas number may be long
        ranks = np.where(arrays[1] != 0, 1 + np.searchsorted(numbers, arrays[1]), 0).astype(np.int16)
        write_bytes(out_dir / volume, label_volume(ranks, affine, Frame.from_dict(layout)))
    names = _names(out_dir / name.replace(".nii.gz", ".tsv"))
    entities = parse_name(relative.name)[0]
    return Outlined(
        name=entities.get("atlas") or entities.get("segmentation") or "Labels",
        title=f"Outlines of the labels {relative.name} on susceptibility, -0.1 to 0.1 ppm",
        picture=f"{target}.png",
        volume=volume,
        names={str(rank): names.get(number, str(number)) for rank, number in enumerate(numbers.tolist(), 1)},
    )


def _names(table: Path) -> dict[int, str]:
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            return {int(row["index"]): row["name"] for row in csv.DictReader(stream, delimiter="\t")}
    except (OSError, ValueError, KeyError):
        return {}
