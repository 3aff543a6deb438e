"""``python -m benchmarks [PART ...] [--only TEXT]``: print the tables of the documentation."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator

from benchmarks import (
    board,
    chains,
    contrasts,
    conversion,
    devices,
    faults,
    heads,
    masks,
    passes,
    regions,
    scale,
    speed,
)

PARTS = (
    "accuracy", "rim", "chains", "board", "masks", "passes", "contrasts", "speed", "scale", "faults", "conversion",
    "regions", "device",
)  # fmt: skip


def _print(title: str, header: list[str], rows: list[list[str]]) -> None:
    print(f"\n## {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def _print_scores(title: str, first: str, table: Iterable[tuple[str, dict[str, float]]]) -> None:
    """A row a name, a column a score."""
    rows: list[list[str]] = []
    header = [first]
    for name, found in table:
        header = [first, *found]
        rows.append([name, *(f"{value:.3g}" for value in found.values())])
    _print(title, header, rows)


def _scored_chains(
    only: str, head: heads.Head, score: Callable[[chains.Result, heads.Head], dict[str, float]]
) -> Iterator[tuple[str, dict[str, float]]]:
    for chain in chains.CHAINS:
        if only in chain.name:
            yield chain.name, score(chains.run(chain, head), head)


def accuracy(only: str) -> None:
    """The default chain on every head."""
    chosen = ((name, heads.head(name)) for name in heads.HEADS if only in name)
    table = ((name, chains.scores(chains.run(chains.default_chain(), head), head)) for name, head in chosen)
    _print_scores("Default chain, from wrapped phase with our own mask", "head", table)


def edges(only: str) -> None:
    """Error against distance from the edge of the brain: the default, and removing the background first."""
    name = next(iter(heads.HEADS))
    title = f"Error by distance from the edge of the brain on the head {name}, percent"
    _print_scores(title, "chain", _scored_chains(only, heads.head(name), chains.rim))


def compare(only: str) -> None:
    """All chains on the first head."""
    name = next(iter(heads.HEADS))
    _print_scores(f"Chains on the head {name}", "chain", _scored_chains(only, heads.head(name), chains.scores))


def isolate(only: str) -> None:
    """Every method alone, beside the public board."""
    head = heads.head(board.HEAD)
    for title, make in (
        ("Background removal from the true total field", board.background),
        ("Inversion of the true local field (or total field)", board.inversion),
        ("Chains from the true total field", board.chains),
    ):
        found = list(make(head, only))
        header = list(dict.fromkeys(name for _, scores in found for name in scores))
        rows = [[name, *(f"{scores[h]:.3g}" if h in scores else "-" for h in header)] for name, scores in found]
        _print(title, ["method", *header], rows)


def others(only: str) -> None:
    """Relaxometry, source separation, several orientations."""
    for title, header, make in contrasts.TABLES:
        rows = make(only)
        if rows:
            _print(title, header, rows)


def extract(only: str) -> None:
    """Brain masks on every head."""
    _print_scores("Brain masks", "head, mask", masks.table(only))


def reduce(only: str) -> None:
    """Two passes and one on heads with strong sources."""
    _print_scores("Two-pass artefact reduction", "head; chain", passes.table(only))


def measure(only: str) -> None:
    """CPU seconds beside QSM.rs."""
    header = ["method", "QSMxT", "QSM.rs", "ratio", "of its transforms"]
    unit = f"one transform and back {speed.transform_seconds():.3f}"
    print(f"\n## CPU seconds at {speed.SIDE}^3 ({speed.threads()} threads; {unit})\n")
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header), flush=True)
    for row in speed.table(only):
        ours, theirs = row.seconds, row.theirs
        ratio = f"{theirs / ours:.1f}" if ours and theirs else "-"
        share = f"{ours / row.transforms:.2f}" if ours and row.transforms else "-"
        cells = [row.name, *("-" if value is None else f"{value:.2f}" for value in (ours, theirs)), ratio, share]
        print("| " + " | ".join(cells) + " |", flush=True)


def plan_and_share(only: str) -> None:
    """What scale costs."""
    _print("Scale", ["what", "measured", "target"], [list(row) for row in scale.table(only)])


def disturb(only: str) -> None:
    """Runs that faults hit."""
    _print("Faults", ["place", "what happened"], [list(row) for row in faults.table()])


def index(only: str) -> None:
    """The table of a large DICOM tree."""
    rows = [[name, f"{cpu:.1f}", f"{wall:.1f}"] for name, cpu, wall in conversion.table() if only in name]
    _print("From a DICOM tree to the table", ["tree", "CPU seconds", "seconds"], rows)


def segment(only: str) -> None:
    """Segmentation and template: ``--only`` picks of segmentation, means, difference, template, tables."""
    for title, header, make in regions.TABLES:
        if only in title:
            _print(title, header, make())


def place(only: str) -> None:
    """The default chain and the methods that can with arrays on a GPU."""
    device = devices.find()
    if device is None:
        print(f"\n{devices.MISSING}")
        return
    name = next(iter(heads.HEADS))
    rows = [[*words, f"{a:.2f}", f"{b:.2f}"] for *words, a, b in devices.chain_table(device, heads.head(name))]
    head = ["stage", "method", "host", device.name]
    _print(f"Wall seconds of the default chain on the head {name} ({speed.threads()} threads)", head, rows)
    methods = [[row, f"{a:.2f}", f"{b:.2f}"] for row, a, b in devices.method_table(device, only)]
    _print(f"Wall seconds of methods at {speed.SIDE}^3", ["method", "host", device.name], methods)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="tables to make; all if none is named")
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    options = parser.parse_args()
    parts = options.parts or PARTS
    makers = (
        accuracy, edges, compare, isolate, extract, reduce, others, measure, plan_and_share, disturb, index, segment,
        place,
    )  # fmt: skip
    for part, make in zip(PARTS, makers, strict=True):
        if part in parts:
            make(options.only)


if __name__ == "__main__":
    main()
