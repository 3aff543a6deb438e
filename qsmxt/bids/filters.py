"""BIDS filter files (``--bids-filter-file``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_filter_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """Stub."""
    raise NotImplementedError
