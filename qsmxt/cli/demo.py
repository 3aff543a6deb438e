"""``qsmxt-demo OUT``: write a dataset of digital heads, run the main job on it, print the error against the truth.

Options that are not of the demo go to ``qsmxt``::

    qsmxt-demo demo-out --subjects 1 --voxel-size 1.5 --inversion tkd
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qsmxt import __version__
from qsmxt.cli.options import Formatter
from qsmxt.errors import QSMxTError


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``qsmxt-demo``."""
    parser = argparse.ArgumentParser(
        prog="qsmxt-demo",
        description="Simulate heads of known susceptibility as a BIDS dataset, map them, and compare with the truth.",
        epilog="All other options are handed to qsmxt.",
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"qsmxt {__version__}")
    parser.add_argument("folder", type=Path, metavar="OUT", help="gets bids, derivatives and work; made if needed")
    parser.add_argument("--subjects", type=int, default=2, metavar="N", help="number of subjects (2)")
    parser.add_argument("--sessions", type=int, default=1, metavar="N", help="sessions of each (1)")
    parser.add_argument(
        "--voxel-size", type=float, nargs="+", default=[2.0], metavar="MM", help="one length or three (2 mm)"
    )
    parser.add_argument("--magnet", type=float, default=3.0, metavar="T", help="strength of the main field (3 T)")
    parser.add_argument(
        "--snr", type=float, default=60.0, metavar="RATIO", help="signal to noise of the first echo (60)"
    )
    parser.add_argument(
        "--echo-times", type=float, nargs="+", default=[0.005, 0.011, 0.017, 0.023], metavar="S", help="echo times"
    )
    parser.add_argument("--oblique", action="store_true", help="tilt the slab by 20 degrees")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (0)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    parser = build_parser()
    options, handed_on = parser.parse_known_args(arguments)
    if len(options.voxel_size) not in (1, 3):
        parser.error(f"--voxel-size: expected one length or three, found {len(options.voxel_size)}")
    folder = options.folder.resolve()
    try:
        write_dataset(folder / "bids", options)
    except QSMxTError as error:
        print(f"qsmxt-demo: {error}", file=sys.stderr)
        return error.exit_code
    from qsmxt.cli.run import main as run

    out = folder / "derivatives"
    handed_on = with_atlas(handed_on)
    code = run([str(folder / "bids"), str(out), "participant", "-w", str(folder / "work"), *handed_on])
    if code == 0 and "--dry-run" not in handed_on:
        print_scores(folder / "bids", out)
    return code


def with_atlas(words: Sequence[str]) -> list[str]:
    """The options for ``qsmxt``; regions come from the template of the head itself unless others are asked for."""
    elsewhere = ("--atlas", "--template-dir", "--template_dir", "--seg-method", "--seg_method", "--config-file")
    if "--segmentation" not in words or any(word.partition("=")[0] in elsewhere for word in words):
        return list(words)
    from qsmxt.phantom.template import ATLAS, TEMPLATE

    return [*words, "--atlas", f"{TEMPLATE}:{ATLAS}"]


def write_dataset(bids: Path, options: argparse.Namespace) -> None:
    """Simulate; a dataset that is there already is written again with the same bytes."""
    from qsmxt.phantom.dataset import write_bids

    size = options.voxel_size
    write_bids(
        bids,
        options.subjects,
        voxel_size=tuple(size * 3) if len(size) == 1 else tuple(size),
        echo_times=tuple(options.echo_times),
        field_strength=options.magnet,
        snr=options.snr,
        oblique=options.oblique,
        sessions=options.sessions,
        seed=options.seed,
        report=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )


def print_scores(bids: Path, out: Path) -> None:
    """The error of every map against the truth."""
    from qsmxt.phantom.score import score, table

    print("\nError against the truth (nrmse in percent; slope over the deep nuclei; part of the brain that is mapped):")
    print(table(score(bids, out)))


if __name__ == "__main__":
    raise SystemExit(main())
