"""``qsmxt-tui``: choose a dataset, outputs, presets, masks and methods on a terminal, and run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qsmxt import __version__
from qsmxt.cli.options import Formatter


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``qsmxt-tui``."""
    parser = argparse.ArgumentParser(
        prog="qsmxt-tui",
        description="Choose on a terminal what qsmxt shall do, see the command, run it.",
        formatter_class=Formatter,
    )
    parser.add_argument("bids_dir", nargs="?", default="", help="root of the BIDS dataset; may be chosen later")
    parser.add_argument("output_dir", nargs="?", default="", help="folder of the derivatives")
    parser.add_argument("--version", action="version", version=f"qsmxt {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the terminal interface; says what is missing if it cannot."""
    options = build_parser().parse_args(arguments)
    try:
        from qsmxt.cli.tui.app import run_app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "textual":
            raise
        print("qsmxt-tui: needs the package textual; install it with: pip install '.[tui]'", file=sys.stderr)
        return 127
    return run_app(options.bids_dir, options.output_dir)
