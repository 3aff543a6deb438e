"""Outlines of labels on susceptibility: drawn when the page is made, as labels come from another branch of the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qsmxt.bids.atomic import write_bytes
from qsmxt.reports.figures import Upright, mosaic, png, upright
from qsmxt.reports.quality import label_files

logger = logging.getLogger("qsmxt")

WINDOW = (-0.1, 0.1)


def label_figures(out_dir: Path, files: Mapping[str, str]) -> list[tuple[str, str]]:
    """Files and titles of the pictures of all labels on the grid of the susceptibility map."""
    if "chi" not in files:
        return []
    drawn = []
    for name in label_files(files):
        relative = Path(name)
        target = f"{relative.parts[0]}/figures/{relative.name.partition('.')[0]}.png"
        try:
            _draw(out_dir / files["chi"], out_dir / name, out_dir / target)
        except (OSError, ValueError) as error:
            logger.warning("%s: labels cannot be drawn (%s)", name, error)
            continue
        drawn.append((target, f"Outlines of the labels {relative.name} on susceptibility, -0.1 to 0.1 ppm"))
    return drawn


def _draw(chi: Path, labels: Path, target: Path) -> None:
    import nibabel

    images = [nibabel.load(path) for path in (chi, labels)]
    shown, outlined = (upright(np.asanyarray(i.dataobj), i.affine) for i in images)  # type: ignore[attr-defined]
    if shown.array.shape != outlined.array.shape:
        raise ValueError(f"expected the shape {shown.array.shape} of the map, found {outlined.array.shape}")
    inside = Upright(outlined.array > 0, outlined.voxel_size)
    if not inside.array.any():
        raise ValueError("no label")
    write_bytes(target, png(mosaic(shown, inside, WINDOW, contours=(outlined,))))
