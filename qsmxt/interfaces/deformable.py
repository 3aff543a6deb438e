r"""Registration of a template to a subject, in two steps.

The whole brain is registered by its anatomy: rigid, affine, then symmetric and diffeomorphic (SyN, Avants 2008,
doi:10.1016/j.media.2007.06.004) at 2 mm, by mutual information. Where the regions of interest lie, the result is
refined at the full resolution, with susceptibility as a second channel: the iron-rich nuclei show there and hardly in
a T1-weighted image. Susceptibility has the same unit in both images and is compared by local cross-correlation; so is
a T1-weighted image that has to do without susceptibility (Dice of the nuclei .85 against .79 by mutual information).

The first step depends on the T1-weighted image and the template alone, so it is done once for all scans of a session;
the second one takes a box of some 100 mm and thus a fraction of the time that the whole head would. Within the box the
displacement goes to zero at the border, so that the composed map is continuous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qsmxt.interfaces import registration as reg
from qsmxt.interfaces.registration import Stage, Volume
from qsmxt.interfaces.transforms import (
    Displacement,
    displaced,
    read_displacement,
    world,
    write_composite,
    write_displacement,
)

#: Shrink factors and smoothing (voxels) of the levels; fewer iterations than levels use the last ones.
_SHRINK, _SMOOTHING = (8, 4, 2, 1), (3, 2, 1, 0)


@dataclass(frozen=True)
class Deformation:
    """Files of a diffeomorphism: displacement, its inverse, and perhaps the affine map that follows it."""

    warp: str
    inverse: str
    affine: str | None = None

    def forward(self) -> list[str]:
        """Transforms that bring the moving image to the fixed one."""
        return [self.warp, *([self.affine] if self.affine else [])]


def align_linearly(fixed: Volume, moving: Volume, folder: Path) -> str:
    """Rigid, then affine transform of a template to a subject; returns its file."""
    best = reg.search(fixed, moving, None, folder / "template")
    stages = [Stage(kind, (8.0, 4.0, 2.0), (500, 250, 100)) for kind in ("Rigid", "Affine")]
    return reg.run_linear(fixed, moving, stages, best, folder / "affine", None)


def deform(
    fixed: Sequence[Volume],
    moving: Sequence[Volume],
    mask: np.ndarray | None,
    prefix: Path,
    *,
    iterations: Sequence[int],
    affine: str | None = None,
    same_contrast: bool = False,
) -> Deformation:
    """Diffeomorphism between images that are aligned by ``affine``, or without it lie on each other already.

    Parameters
    ----------
    fixed, moving
        Channels: anatomy, compared by mutual information, and perhaps susceptibility (ppm), by cross-correlation.
    mask
        Where they are compared, on the grid of the fixed image.
    prefix
        Beginning of the names of files.
    iterations
        Of every level; the last one is the full resolution of the fixed image, the one before half of it.
    same_contrast
        Whether anatomy has the same contrast in both; it is compared by cross-correlation, too, then.
    """
    images = reg.Pointers()
    levels = len(iterations)
    arguments = ["--dimensionality", "3", *(["-r", affine] if affine else []), "--transform", "SyN[0.2,3,0]"]
    for number, (f, m) in enumerate(zip(fixed, moving, strict=True)):
        kind, scale = ("MI", 32) if number == 0 and not same_contrast else ("CC", 2)
        arguments += ["--metric", f"{kind}[{images.add(f)},{images.add(m)},1,{scale}]"]
    arguments += [
        "--convergence", f"[{'x'.join(str(n) for n in iterations)},1e-6,10]",
        "--shrink-factors", "x".join(str(n) for n in _SHRINK[-levels:]),
        "--smoothing-sigmas", "x".join(str(n) for n in _SMOOTHING[-levels:]) + "vox",
        "-x", images.masks(fixed[0], mask),
    ]  # fmt: skip
    reg.call(arguments, images, prefix)
    number = 1 if affine else 0
    warp, inverse = (f"{prefix}{number}{kind}Warp.nii.gz" for kind in ("", "Inverse"))
    return Deformation(warp, inverse, affine)


def refine(
    fixed: Sequence[Volume],
    moving: Sequence[Volume],
    coarse: Deformation,
    mask: np.ndarray | None,
    prefix: Path,
    *,
    iterations: Sequence[int],
    same_contrast: bool = False,
) -> Deformation:
    """What is left of the deformation on the grid of ``fixed``, a part of the head, after ``coarse``."""
    here = [f.with_array(reg.resample(m, f, coarse.forward())) for f, m in zip(fixed, moving, strict=True)]
    return deform(fixed, here, mask, prefix, iterations=iterations, same_contrast=same_contrast)


def composed(fine: Deformation, whole: Deformation, grid: Volume, folder: Path) -> Deformation:
    """Both displacements as one on ``grid``: points go through ``fine`` first."""
    made = []
    for kind, chain in (("Warp", (fine.warp, whole.warp)), ("InverseWarp", (whole.inverse, fine.inverse))):
        first, second = (read_displacement(path) for path in chain)
        points = world(grid)
        moved = displaced(displaced(points, first), second)
        made.append(write_displacement(Displacement(moved - points, grid.affine), folder / f"total{kind}.nii.gz"))
    return Deformation(*made)


def write_both_ways(parts: Sequence[Deformation], folder: Path) -> tuple[str, str]:
    """Composite files that bring the template to the subject, and the subject to the template.

    ``parts`` in the order in which a point of the subject goes through them.
    """
    forward: list[Displacement | np.ndarray] = []
    backward: list[Displacement | np.ndarray] = []
    for part in parts:
        matrix = [reg.read_affine(part.affine)] if part.affine else []
        forward += [read_displacement(part.warp), *matrix]
        backward = [*(np.linalg.inv(m) for m in matrix), read_displacement(part.inverse), *backward]
    files = folder / "templateComposite.h5", folder / "templateInverseComposite.h5"
    for file, chain in zip(files, (forward, backward), strict=True):
        write_composite(chain, file)
    return str(files[0]), str(files[1])
