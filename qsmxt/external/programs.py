"""Run a program that the user has installed, and say clearly what is missing or went wrong."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from qsmxt.errors import MissingProgramError, QSMxTError

#: So much of what a failed program wrote is repeated.
_TAIL = 600


def require(program: str, advice: str) -> str:
    """Path of ``program``; :class:`MissingProgramError` with ``advice`` if it is not on the PATH."""
    found = shutil.which(program)
    if found is None:
        raise MissingProgramError(f"{program}: expected on the PATH, found nothing; {advice}")
    return found


def call(command: Sequence[str], log: Path) -> None:
    """Run a command, its output to ``log``; an error repeats the end of it."""
    with log.open("wb") as stream:
        done = subprocess.run(list(command), stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()
        raise QSMxTError(f"{Path(command[0]).name} ended with code {done.returncode}; see {log}\n{tail}")


def as_nifti(source: Path, target: Path) -> Path:
    """A label image of FreeSurfer (MGZ) as NIfTI, int32."""
    import nibabel
    import numpy as np

    image = nibabel.load(source)
    labels = np.asarray(image.dataobj).astype(np.int32)  # type: ignore[attr-defined]
    content = nibabel.Nifti1Image(labels, image.affine).to_bytes()  # type: ignore[attr-defined]
    target.write_bytes(gzip.compress(content, compresslevel=3, mtime=0))
    return target
