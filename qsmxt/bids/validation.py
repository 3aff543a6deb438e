"""Run the official BIDS validator, if it is installed."""

from __future__ import annotations

from pathlib import Path


def find_validator() -> Path | None:
    """Stub: the executable, or ``None``."""
    raise NotImplementedError


def validate(bids_dir: str | Path) -> list[str]:
    """Stub: errors in words; empty if there are none, or (with a logged note) if no validator is installed."""
    raise NotImplementedError
