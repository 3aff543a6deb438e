"""Find the acquisitions of a BIDS dataset that can be processed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsmxt.bids.units import EchoFiles, ProcessingUnit, Rejected, Selection

__all__ = ["EchoFiles", "ProcessingUnit", "Rejected", "Selection", "find_units"]


def find_units(
    bids_dir: str | Path,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    database_dir: str | Path | None = None,
    field_strength: float | None = None,
) -> Selection:
    """Stub."""
    raise NotImplementedError
