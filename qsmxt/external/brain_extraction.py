"""Brain masks made by programs that are not part of the package: HD-BET, SynthStrip, registration of a template.

Each function takes a volume and its affine and returns a bool mask on the same grid. If what it needs is not installed,
:class:`~qsmxt.errors.MissingProgramError` says how to get it; nothing is downloaded by the package itself.

References
----------
HD-BET: Isensee et al. 2019 (doi:10.1002/hbm.24750). SynthStrip: Hoopes et al. 2022
(doi:10.1016/j.neuroimage.2022.119474). ANTs: Avants et al. 2011 (doi:10.1016/j.neuroimage.2010.09.025).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from qsmxt.errors import InputError, MissingProgramError
from qsmxt.external.templates import template_head

#: Programs of the generators, and how to get them.
PROGRAMS = {
    "hd-bet": ("hd-bet", "pip install hd-bet (needs PyTorch; fetches its weights at the first run)"),
    "synthstrip": ("mri_synthstrip", "install FreeSurfer 7.3 or later, or the stand-alone SynthStrip container"),
}


def installed(name: str) -> bool:
    """Whether the program of the generator ``name`` is on the path, or antspyx for ``registration``."""
    if name == "registration":
        from importlib.util import find_spec

        return find_spec("ants") is not None
    return shutil.which(PROGRAMS[name][0]) is not None


def hd_bet(image: np.ndarray, affine: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Mask by HD-BET on the processor, without test-time augmentation; versions 1 and 2 of the program."""
    program = _program("hd-bet")

    def extract(source: Path, folder: Path) -> None:
        out = folder / "brain.nii.gz"
        second = [program, "-i", source, "-o", out, "-device", "cpu", "--disable_tta", "--save_bet_mask"]
        first = [program, "-i", source, "-o", out, "-device", "cpu", "-mode", "fast", "-tta", "0", "-s", "1"]
        if _run(second, threads, check=False) != 0:
            _run(first, threads)

    return _extracted(image, affine, extract, ("*_mask.nii.gz", "*_bet.nii.gz"))


def synthstrip(image: np.ndarray, affine: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """Mask by SynthStrip."""
    program = _program("synthstrip")

    def extract(source: Path, folder: Path) -> None:
        _run([program, "-i", source, "-m", folder / "brain_mask.nii.gz"], threads)

    return _extracted(image, affine, extract, ("brain_mask.nii.gz",))


def registration(
    image: np.ndarray,
    affine: np.ndarray,
    template: np.ndarray,
    template_mask: np.ndarray,
    template_affine: np.ndarray,
    *,
    transform: str = "antsRegistrationSyNQuickRepro[s]",
) -> np.ndarray:
    """Mask of a template brought to the image by a non-linear registration (antspyx).

    Parameters
    ----------
    image, affine
        Magnitude or T1-weighted volume of a whole head.
    template, template_mask, template_affine
        A head *with* skull and scalp (a skull-stripped template fails), and its brain mask.
    transform
        Type of transform of antspyx; the default repeats exactly.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # what is computed must not depend on their number
    try:
        import ants
    except ImportError:
        raise MissingProgramError("brain mask by registration: antspyx is not installed; pip install antspyx") from None
    fixed = _ants_image(ants, image, affine)
    moving = _ants_image(ants, template, template_affine)
    labels = _ants_image(ants, np.asarray(template_mask, dtype=np.float32), template_affine)
    found = ants.registration(fixed=fixed, moving=moving, type_of_transform=transform)
    warped = ants.apply_transforms(fixed, labels, found["fwdtransforms"], interpolator="linear").numpy()
    for path in {*found["fwdtransforms"], *found["invtransforms"]}:
        Path(path).unlink(missing_ok=True)
    return warped > 0.5


def template_registration(image: np.ndarray, affine: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """:func:`registration` of the default template of TemplateFlow; one thread whatever is given."""
    head, brain = template_head()
    template, mask = nib.load(head), nib.load(brain)  # type: ignore[attr-defined]
    values, inside = template.get_fdata(dtype=np.float32), np.asanyarray(mask.dataobj) > 0  # type: ignore[attr-defined]
    return registration(image, affine, values, inside, template.affine)  # type: ignore[attr-defined]


def _ants_image(ants: Any, volume: np.ndarray, affine: np.ndarray) -> Any:
    """The volume as an ANTs image, whose physical frame is LPS."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=float)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(volume, dtype=np.float32),
        origin=tuple(affine[:3, 3]),
        spacing=tuple(spacing),
        direction=affine[:3, :3] / spacing,
    )


def _program(name: str) -> str:
    program, advice = PROGRAMS[name]
    found = shutil.which(program)
    if found is None:
        raise MissingProgramError(f"{name}: the program {program} is not on the path; {advice}, or choose another mask")
    return found


def _run(command: list, threads: int, *, check: bool = True) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
    result = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, check=False
    )
    if check and result.returncode != 0:
        raise InputError(f"{command[0]} failed with exit code {result.returncode}: {result.stderr.strip()[-500:]}")
    return result.returncode


def _extracted(
    image: np.ndarray, affine: np.ndarray, extract: Callable[[Path, Path], None], patterns: tuple[str, ...]
) -> np.ndarray:
    """What ``extract(image file, folder)`` leaves in the folder under the first pattern that is there, as a mask."""
    with tempfile.TemporaryDirectory(prefix="qsmxt-") as name:
        folder = Path(name)
        source = folder / "head.nii.gz"
        nib.save(nib.Nifti1Image(np.asarray(image, dtype=np.float32), affine), source)
        extract(source, folder)
        made = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
        if not made:
            raise InputError(f"brain extraction: expected a file {' or '.join(patterns)}, found none")
        mask = np.asanyarray(nib.load(made[0]).dataobj) > 0  # type: ignore[attr-defined]
    if mask.shape != image.shape:
        raise InputError(f"brain extraction: expected a mask of shape {image.shape}, found {mask.shape}")
    return mask
