"""``qsmxt-convert``: from the scanner to BIDS, and maps back to DICOM.

``qsmxt-convert dicom SOURCE BIDS``, ``qsmxt-convert nifti SOURCE BIDS``, ``qsmxt-convert export MAP FOLDER``.

Exit code 0: everything was converted; 1: something was not, and is named; other codes as in :mod:`qsmxt.errors`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qsmxt
from qsmxt.errors import ParameterError, QSMxTError

if TYPE_CHECKING:
    from rich.console import Console

    from qsmxt.convert.archives import Problem
    from qsmxt.convert.dicom import Progress, Report, Settings
    from qsmxt.convert.nifti_table import NiftiRow
    from qsmxt.convert.review import Review

_EPILOG = """\
examples:
  qsmxt-convert dicom scans.zip bids                look at the table, edit it, convert
  qsmxt-convert dicom scans bids --yes              convert what the tags say
  qsmxt-convert dicom scans bids --dry-run          print the plan
  qsmxt-convert dicom more bids --mapping bids/code/qsmxt-convert/mapping.tsv
  qsmxt-convert nifti nii bids --subject 01 --field-strength 3 --echo-times 0.004 0.012 0.02
  qsmxt-convert export sub-01_Chimap.nii.gz dicom/qsm --source-dicom scans/mag
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    from rich.console import Console

    options = build_parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        code: int = options.run(options, console)
        return code
    except QSMxTError as error:
        console.print(f"qsmxt-convert: {error}", markup=False, style="red")
        return error.exit_code
    except KeyboardInterrupt:
        console.print("interrupted; nothing half was left behind", style="red")
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all three commands."""
    parser = argparse.ArgumentParser(
        "qsmxt-convert", description=__doc__.splitlines()[0] if __doc__ else None, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"qsmxt-convert {qsmxt.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="{dicom,nifti,export}")
    _add_dicom(commands)
    _add_nifti(commands)
    _add_export(commands)
    return parser


def _add_dicom(commands: Any) -> None:
    parser = commands.add_parser("dicom", help="DICOM to BIDS")
    parser.add_argument("source", type=Path, help="folder, zip or tar archive, or file")
    parser.add_argument("bids_dir", type=Path, help="dataset to write to, or to extend")
    labels = parser.add_argument_group("labels")
    labels.add_argument(
        "--subject-pattern", metavar="[FIELD=]REGEX",
        help="label of the subject: first group of a regular expression on the patient ID, or on FIELD "
        "(patient_name, study_description, path, ...)",
    )  # fmt: skip
    labels.add_argument(
        "--session-pattern", metavar="[FIELD=]REGEX|date|number|none", default="date",
        help="label of the session: the date of the study (default), its number, none, or a regular expression",
    )  # fmt: skip
    table = parser.add_argument_group("table")
    table.add_argument("--mapping", type=Path, metavar="FILE", help="replay the decisions of an earlier conversion")
    table.add_argument("--save-mapping", type=Path, metavar="FILE", help="also save the decisions here (.tsv or .toml)")
    _add_common(table)
    privacy = parser.add_argument_group("privacy")
    privacy.add_argument("--anonymise", action="store_true", help="remove identity, number subjects, shift dates")
    privacy.add_argument(
        "--key", type=Path, metavar="TSV", help="who is who; default: beside the dataset, for you only"
    )
    parser.add_argument(
        "--combine-coils", nargs="?", const="default", metavar="METHOD", help="combine single receive elements"
    )
    parser.add_argument("--nprocs", type=_positive, metavar="N", help="processes and threads; default: all, at most 8")
    parser.set_defaults(run=run_dicom)


def _add_nifti(commands: Any) -> None:
    parser = commands.add_parser("nifti", help="NIfTI or PAR/REC to BIDS")
    parser.add_argument("source", type=Path, help="folder or file")
    parser.add_argument("bids_dir", type=Path, help="dataset to write to, or to extend")
    table = parser.add_argument_group("table")
    table.add_argument("--preset", default="auto", help="names to expect: auto (default), bids, qsmxt, dcm2niix, words")
    table.add_argument(
        "--pattern", action="append", default=[], metavar="COLUMN=REGEX",
        help="fill a column (sub, ses, acq, rec, run, inv, echo, part, suffix, EchoTime, MagneticFieldStrength) from "
        "the path; the first group counts; can be repeated",
    )  # fmt: skip
    table.add_argument("--table", type=Path, metavar="TSV", help="table filled by hand (see --save-table)")
    table.add_argument("--save-table", type=Path, metavar="TSV", help="write the table and stop, to fill it by hand")
    _add_common(table)
    values = parser.add_argument_group("values for all volumes")
    for flag, column in (("--subject", "sub"), ("--session", "ses"), ("--acquisition", "acq"), ("--suffix", "suffix")):
        values.add_argument(flag, dest=column, metavar="LABEL")
    values.add_argument("--field-strength", dest="MagneticFieldStrength", metavar="T", type=float)
    values.add_argument("--echo-times", type=float, nargs="+", default=(), metavar="S", help="in seconds, ascending")
    parser.set_defaults(run=run_nifti)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser("export", help="a map to DICOM")
    parser.add_argument("map", type=Path, help="3-D NIfTI image")
    parser.add_argument("out_dir", type=Path, help="new folder for the slices")
    parser.add_argument("--sidecar", type=Path, metavar="JSON", help="acquisition; default: the file beside the map")
    parser.add_argument("--source-dicom", type=Path, metavar="PATH", help="file or folder of the study it belongs to")
    parser.add_argument("--kind", metavar="KIND", help="chi, swi, minIP, t2star, r2star, ...; default: from the name")
    parser.add_argument("--description", metavar="TEXT", help="series description")
    parser.add_argument("--series-number", type=_positive, metavar="N")
    parser.add_argument("--multiframe", action="store_true", help="one enhanced multi-frame file instead of slices")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it is there")
    parser.set_defaults(run=run_export)


def _add_common(group: Any) -> None:
    group.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    group.add_argument("-y", "--yes", action="store_true", help="do not ask, take the table as it is")
    group.add_argument("--overwrite", action="store_true", help="replace files that are there")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, found {text}")
    return number


def run_dicom(options: argparse.Namespace, console: Console) -> int:
    """``qsmxt-convert dicom``."""
    from qsmxt.convert.dicom import convert_table, read_table
    from qsmxt.convert.mapping import save_mapping
    from qsmxt.convert.review import Review

    settings = _dicom_settings(options)
    with progress_bar(console) as progress:
        opened = read_table(options.source, settings, dataset=options.bids_dir, progress=progress)
        table = opened.__enter__()
    try:
        console.print(f"{table.files} files, {table.ignored} without MR images, {len(table.rows)} lines in the table")
        if options.dry_run:
            _print_plan(table.rows, table.problems, options.bids_dir, options.overwrite)
            return 0
        if _is_terminal() and not options.yes and options.mapping is None:
            session = Review(list(table.rows))
            if not review(session, console, read_line):
                return 0
            table.rows[:] = session.rows
        with progress_bar(console) as progress:
            report = convert_table(table, options.bids_dir, settings, progress=progress)
        if options.save_mapping is not None:
            save_mapping(options.save_mapping, table.rows)
    finally:
        opened.__exit__(None, None, None)
    return print_report(report, console)


def _dicom_settings(options: argparse.Namespace) -> Settings:
    from qsmxt.convert.dicom import Settings
    from qsmxt.convert.naming import Labelling

    return Settings(
        labelling=Labelling.parse(options.subject_pattern, options.session_pattern),
        mapping=options.mapping,
        overwrite=options.overwrite,
        anonymise=options.anonymise,
        key=options.key,
        combine=options.combine_coils,
        workers=options.nprocs,
    )


def review(session: Review, console: Console, ask: Callable[[str], str | None]) -> bool:
    """Show the table until it is accepted or left. Returns whether to convert.

    Parameters
    ----------
    session
        The table and what can be done to it.
    console
        Where it is drawn.
    ask
        Gives the next command for a prompt, or ``None`` at the end of the input, which means to leave.
    """
    console.print(session.help, markup=False)
    shown: list[Any] | None = None
    while session.finished is None:
        if session.rows is not shown:
            console.print(session.drawing())
            for text in session.warnings():
                console.print(f"! {text}", markup=False, style="yellow")
            shown = session.rows
        command = ask("convert? [ok / line cell=value / help] ")
        answer = session.command("quit" if command is None else command)
        if answer:
            console.print(answer, markup=False)
    return session.finished


def read_line(prompt: str) -> str | None:
    """One line from the terminal, or ``None`` at the end of the input."""
    try:
        return input(prompt)
    except EOFError:
        return None


def run_nifti(options: argparse.Namespace, console: Console) -> int:
    """``qsmxt-convert nifti``."""
    from qsmxt.convert.nifti import SAVED_TABLE, NiftiSettings, convert_nifti, read_nifti_table
    from qsmxt.convert.nifti_review import NiftiReview
    from qsmxt.convert.nifti_table import save_table

    columns = ("sub", "ses", "acq", "suffix", "MagneticFieldStrength")
    settings = NiftiSettings(
        preset=options.preset,
        patterns=_patterns(options.pattern),
        table=options.table,
        values={c: str(getattr(options, c)) for c in columns if getattr(options, c) is not None},
        echo_times=tuple(options.echo_times),
    )
    rows = read_nifti_table(options.source, settings)
    if options.save_table is not None:
        save_table(options.save_table, rows)
        console.print(f"{len(rows)} volumes listed in {options.save_table}; fill it and give it to --table")
        return 0
    if options.dry_run:
        _print_nifti_plan(rows, console)
        return 0
    if _is_terminal() and not options.yes:
        ask_for_missing(rows, console, read_line)
        session = NiftiReview(list(rows))
        if not review(session, console, read_line):
            return 0
        rows = session.rows
    with progress_bar(console) as progress:
        report = convert_nifti(rows, options.source, options.bids_dir, overwrite=options.overwrite, progress=progress)
    if report.written and options.table is None:
        save_table(options.bids_dir / SAVED_TABLE, rows)
    return print_report(report, console)


def _print_nifti_plan(rows: Sequence[NiftiRow], console: Console) -> None:
    from qsmxt.convert.nifti import output_of
    from qsmxt.convert.nifti_table import check_table

    problems = check_table(rows)
    for row in rows:
        target = f"{output_of(row, rows)}.nii.gz" if row.suffix != "skip" and not problems else row.suffix
        print(f"{row.title} -> {target or '?'}")
    for text in problems:
        console.print(f"! {text}", markup=False, style="yellow")


def _patterns(texts: Iterable[str]) -> dict[str, str]:
    patterns = {}
    for text in texts:
        column, sign, expression = text.partition("=")
        if not sign:
            raise ParameterError(f"--pattern: expected COLUMN=REGEX, found {text!r}")
        patterns[column] = expression
    return patterns


def ask_for_missing(rows: Sequence[NiftiRow], console: Console, ask: Callable[[str], str | None]) -> None:
    """Ask for values that no file gives, once for all volumes that lack them; an empty answer leaves them out."""
    from qsmxt.convert.nifti_table import COLUMNS, fill_echoes, missing_cells

    names = {cell: column for column, cell in COLUMNS.items()}
    asked: set[tuple[str, int]] = set()
    while open_cells := [(r, c) for r, c in missing_cells(rows) if (c, r.echo if c == "echo_time" else 0) not in asked]:
        row, cell = open_cells[0]
        key = (cell, row.echo if cell == "echo_time" else 0)
        asked.add(key)
        same = [r for r, c in open_cells if c == cell and (cell != "echo_time" or r.echo == row.echo)]
        unit = {"echo_time": " in s", "field_strength": " in T"}.get(cell, "")
        what = f"{names[cell]}{unit}" + (f" of echo {row.echo}" if cell == "echo_time" and row.echo else "")
        answer = ask(f"{what} for {row.title}" + (f" and {len(same) - 1} others: " if len(same) > 1 else ": "))
        if not answer:
            continue
        try:
            for one in same:
                one.fill(names[cell], answer)
        except QSMxTError as error:
            console.print(str(error), markup=False, style="yellow")
            asked.discard(key)
    fill_echoes(rows)


def run_export(options: argparse.Namespace, console: Console) -> int:
    """``qsmxt-convert export``."""
    from qsmxt.convert.export import export_dicom

    written = export_dicom(
        options.map, options.sidecar, options.out_dir, options.source_dicom, kind=options.kind,
        description=options.description, series_number=options.series_number, multiframe=options.multiframe,
        overwrite=options.overwrite,
    )  # fmt: skip
    what = "multi-frame file" if options.multiframe else "slices"
    console.print(f"{len(written)} {what} written to {options.out_dir}", markup=False)
    return 0


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _print_plan(rows: Sequence[Any], problems: Sequence[Problem], dataset: Path, overwrite: bool) -> None:
    """The table and the files that would be written, to the standard output."""
    from rich.console import Console

    from qsmxt.convert.plan import make_plan
    from qsmxt.convert.review import rich_table

    out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)
    out.print(rich_table(rows))
    for unit in make_plan(rows):
        there = bool(unit.existing(dataset))
        for path in unit.outputs:
            note = "" if not there else ("  (replaced)" if overwrite else "  (is there already, kept)")
            out.print(f"{path}.nii.gz{note}", markup=False)
        for text in unit.warnings:
            out.print(f"! {unit.name}: {text}", markup=False)
    for row in rows:
        for text in row.warnings:
            out.print(f"! {row.title}: {text}", markup=False)
    for problem in problems:
        out.print(f"! {problem}", markup=False)


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(text: str, done: int, total: int) -> None:
            bar.update(task, description=text[-60:], completed=done, total=total)

        yield show


def print_report(report: Report, console: Console) -> int:
    """Say what came of a conversion; returns the exit code."""
    for problem in report.warnings:
        console.print(f"! {problem}", markup=False, style="yellow")
    for problem in report.problems:
        console.print(f"not converted: {problem}", markup=False, style="red")
    for name in report.kept:
        console.print(f"kept, is there already (see --overwrite): {name}", markup=False)
    console.print(f"{len(report.written)} images written", markup=False)
    return 1 if report.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
