"""``qsmxt-tui``: choose a dataset, outputs, presets, masks and methods on a terminal, and run."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the terminal interface; says what is missing if it cannot."""
    try:
        from qsmxt.cli.tui.app import main as run
    except ModuleNotFoundError as error:
        if error.name != "textual":
            raise
        print("qsmxt-tui: needs the package textual; install it with: pip install 'qsmxt[tui]'", file=sys.stderr)
        return 127
    return run(arguments)
