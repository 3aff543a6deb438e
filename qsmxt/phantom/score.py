"""Susceptibility maps against the truth of a dataset of digital heads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qsmxt.algorithms import metrics
from qsmxt.bids.entities import parse_name
from qsmxt.bids.images import check_same_grid, read_header, stored_values
from qsmxt.errors import InputError
from qsmxt.phantom.dataset import truth_folder

#: Distance of the core from the edge of the brain, mm: five voxels of the 1.5 mm head.
CORE_DEPTH = 7.5
#: Entities that tell a map from the plain susceptibility map.
_FOREIGN = ("space", "description", "template", "resolution", "label")


@dataclass(frozen=True)
class Score:
    """One susceptibility map against the truth.

    Attributes
    ----------
    name
        Name of the map's file without suffix.
    nrmse, core_nrmse
        Demeaned error inside the brain and where there is a map, percent; the same 7.5 mm inside the brain's edge.
    deep_grey_slope
        Of the six nuclei's means against the true ones.
    coverage
        Fraction of the brain with a map.
    """

    name: str
    nrmse: float
    core_nrmse: float
    deep_grey_slope: float
    coverage: float


def score(bids: str | Path, out: str | Path) -> list[Score]:
    """Compare every susceptibility map of the derivatives ``out`` with the truth inside the dataset ``bids``.

    Only maps on the grid of the acquisition count: ``_Chimap`` without ``space``, ``desc``, ``res`` or ``label``.

    Raises
    ------
    InputError
        If the dataset has no truth, or there is no such map.
    """
    truth = truth_folder(bids)
    found = []
    for path in sorted(Path(out).glob("sub-*/**/*_Chimap.nii*")):
        entities, _, _ = parse_name(path.name)
        if any(name in entities for name in _FOREIGN):
            continue
        parts = [f"sub-{entities['subject']}"]
        parts += [f"ses-{entities['session']}"] if "session" in entities else []
        true = truth.joinpath(*parts) / "anat"
        if true.is_dir():
            found.append(_score(path, true, "_".join(parts)))
    if not found:
        raise InputError(f"{out}: expected susceptibility maps of the digital heads (sub-*_Chimap.nii.gz), found none")
    return found


def table(scores: list[Score]) -> str:
    """The scores as aligned text, one map a line."""
    head = [f.name for f in dataclasses.fields(Score)]
    rows = [head, *([s.name, *(_number(getattr(s, name)) for name in head[1:])] for s in scores)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 5 else f"{value:.3f}"


def _score(path: Path, folder: Path, prefix: str) -> Score:
    check_same_grid(read_header(folder / f"{prefix}_Chimap.nii.gz"), read_header(path))
    truth, labels, brain = (
        _load(folder / f"{prefix}_{rest}.nii.gz") for rest in ("Chimap", "seg-tissue_dseg", "desc-brain_mask")
    )
    estimate = np.nan_to_num(_load(path))
    inside, brain = (estimate != 0) & (brain > 0), brain > 0
    side = float(np.prod(np.linalg.norm(read_header(path).affine[:3, :3], axis=0)) ** (1 / 3))
    core = metrics.core(brain, max(1, round(CORE_DEPTH / side))) & inside
    labels = labels.astype(np.uint8)
    return Score(
        name=path.name.removesuffix(".gz").removesuffix(".nii").removesuffix("_Chimap"),
        nrmse=metrics.nrmse(estimate, truth, inside),
        core_nrmse=metrics.nrmse(estimate, truth, core),
        deep_grey_slope=metrics.slope(estimate, truth, labels, inside),
        coverage=metrics.coverage(inside, brain),
    )


def _load(path: Path) -> np.ndarray:
    stored, slope, intercept = stored_values(path)
    return (stored * slope + intercept).astype(np.float32)
