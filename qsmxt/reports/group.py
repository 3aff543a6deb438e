"""The page of the group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_group_report(
    out_dir: Path,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    missing: Sequence[str],
    template: Mapping[str, Any],
) -> Path:
    """Write ``group.html``."""
    from qsmxt.bids.atomic import write_text

    return write_text(out_dir / "group.html", '<!DOCTYPE html>\n<html lang="en"><title>QSMxT: group</title></html>\n')
