"""Nuclei of the digital head, left and right apart, with names and indices in the manner of FreeSurfer.

FreeSurfer's table has no entry for the red and the dentate nucleus; these carry indices from 30001, which it does not
use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.phantom.anatomy import INDEX, Coordinates
from qsmxt.phantom.deformation import Deformation


@dataclass(frozen=True)
class Region:
    """One nucleus of one side: index and name of the label, tissue of the head, side (+1 right, -1 left), colour."""

    index: int
    name: str
    abbreviation: str
    tissue: int
    side: int
    color: str


_NUCLEI = (
    ("thalamus", "Thalamus", "Th", (10, 49), "#00760e"),
    ("caudate", "Caudate", "Ca", (11, 50), "#7abadc"),
    ("putamen", "Putamen", "Pu", (12, 51), "#ec0db0"),
    ("pallidum", "Pallidum", "GP", (13, 52), "#0c30ff"),
    ("substantia-nigra", "Substantia-Nigra", "SN", (27, 59), "#00ff7f"),
    ("red-nucleus", "Red-Nucleus", "RN", (30001, 30002), "#cc3333"),
    ("dentate", "Dentate", "DN", (30003, 30004), "#ffa500"),
)

#: All nuclei, left before right.
REGIONS = tuple(
    Region(indices[side > 0], f"{word}-{name}", f"{abbreviation}_{word[0]}", INDEX[tissue], side, color)
    for tissue, name, abbreviation, indices, color in _NUCLEI
    for word, side in (("Left", -1), ("Right", 1))
)


def nuclei(
    labels: np.ndarray, voxel_size: tuple[float, float, float], deformation: Deformation | None = None
) -> np.ndarray:
    """Index of the nucleus at every voxel, int16, 0 elsewhere.

    Parameters
    ----------
    labels
        Tissue of the voxels, on a grid whose middle is the origin.
    voxel_size
        mm.
    deformation
        Map from the axes of the grid to the head frame, whose x decides about the side.
    """
    coordinates = Coordinates(labels.shape, voxel_size, deformation)  # type: ignore[arg-type]
    right = np.broadcast_to(coordinates.at(coordinates.everywhere)[0] > 0, labels.shape)
    out = np.zeros(labels.shape, dtype=np.int16)
    for region in REGIONS:
        out[(labels == region.tissue) & (right == (region.side > 0))] = region.index
    return out


def regions_table() -> str:
    """The regions as the text of a BIDS ``dseg.tsv``."""
    rows = ["index\tname\tabbreviation\tcolor"]
    rows += [f"{r.index}\t{r.name}\t{r.abbreviation}\t{r.color}" for r in REGIONS]
    return "\n".join(rows) + "\n"
