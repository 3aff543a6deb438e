"""Names, images and sidecars of derivatives; the only module that spells a derivative's file name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.bids.units import ProcessingUnit


class Derivatives:
    """The derivative dataset in ``out_dir``."""

    def __init__(self, out_dir: str | Path) -> None:
        self.out_dir = Path(out_dir)

    def path(
        self,
        unit: ProcessingUnit,
        suffix: str,
        *,
        desc: str | None = None,
        extension: str = ".nii.gz",
        datatype: str = "anat",
        **entities: str,
    ) -> Path:
        """Stub."""
        raise NotImplementedError

    def figure(
        self, unit: ProcessingUnit, suffix: str, *, desc: str | None = None, extension: str = ".png", **entities: str
    ) -> Path:
        """Stub."""
        raise NotImplementedError


def save_volume(
    path: Path, array: np.ndarray, affine: np.ndarray, *, unit_label: str, sidecar: Mapping[str, Any]
) -> Path:
    """Stub."""
    raise NotImplementedError


def sidecar(
    unit: ProcessingUnit,
    bids_dir: str | Path,
    artifact: str,
    *,
    method_records: Sequence[Any],
    parameters: Mapping[str, Any],
    version: str,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Stub."""
    raise NotImplementedError
