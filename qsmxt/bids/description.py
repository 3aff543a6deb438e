"""Files that describe a derivative dataset as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_dataset_description(
    out_dir: str | Path, bids_dir: str | Path, version: str, container: Mapping[str, str] | None = None
) -> Path:
    """Stub."""
    raise NotImplementedError


def write_bidsignore(out_dir: str | Path) -> Path:
    """Stub."""
    raise NotImplementedError


def write_descriptions(out_dir: str | Path) -> Path:
    """Stub: ``descriptions.tsv``."""
    raise NotImplementedError
