"""Look at the table of a conversion and change it, line by line.

:class:`Review` holds the table and understands commands; it knows nothing of a terminal. :meth:`Review.drawing` draws
it. :mod:`qsmxt.convert.nifti_review` does the same for the table of NIfTI volumes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from qsmxt.convert.plan import make_plan
from qsmxt.convert.table import PARTS, TYPES, Row
from qsmxt.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

#: Cells that can be changed, by the names that can be typed.
CELLS = {
    "type": "type", "suffix": "suffix", "sub": "subject", "subject": "subject", "ses": "session", "session": "session",
    "acq": "acquisition", "acquisition": "acquisition", "rec": "reconstruction", "reconstruction": "reconstruction",
    "run": "run", "inv": "inversion", "inversion": "inversion",
}  # fmt: skip
_NUMBERS = ("run", "inversion")

_HELP = """\
  3 {example:<20} change cells of line 3 (also 3-5, 3,7 or all)
  3 skip                 leave line 3 out; {words}
  names                  show the files that would be written
  undo                   take the last change back
  ok                     convert
  quit                   leave without converting
cells: {cells}; nothing after = empties a cell"""


@dataclass
class Review:
    """A table that is being looked at.

    Attributes
    ----------
    rows
        The current table.
    finished
        ``None`` while it is being looked at, then whether to convert.
    """

    rows: list[Any]
    finished: bool | None = None
    _history: list[list[Any]] = field(default_factory=list)

    #: What can be typed.
    help: ClassVar[str] = _HELP.format(
        example="type=phase acq=QSM", words=f"any type can be given so: {', '.join(TYPES)}",
        cells="type, suffix, sub, ses, acq, rec, run, inv",
    )  # fmt: skip

    def command(self, text: str) -> str:
        """Carry out one command and say what came of it."""
        words = text.split()
        if not words:
            return ""
        if words[0] in ("ok", "y", "yes"):
            return self._accept()
        if words[0] in ("quit", "q", "exit"):
            self.finished = False
            return "nothing was converted"
        if words[0] == "undo":
            if not self._history:
                return "there is nothing to undo"
            self.rows = self._history.pop()
            return "undone"
        if words[0] == "names":
            return self._names()
        if words[0] in ("help", "h", "?"):
            return self.help
        try:
            return self._change(words[0], shlex.split(text)[1:])
        except (InputError, ValueError) as error:
            return f"not changed: {error}"

    def warnings(self) -> list[str]:
        """What is odd about the table as it is now."""
        found = [f"{number}: {text}" for number, row in enumerate(self.rows, 1) for text in row.warnings]
        for number, row in enumerate(self.rows, 1):
            if row.type in ("phase", "real", "imag"):
                partners = {r.type for r in self.rows if r is not row and _same_acquisition(r, row)}
                wanted = {"phase": {"mag"}, "real": {"imag"}, "imag": {"real"}}[row.type]
                if not partners & wanted and not any("without" in text for text in row.warnings):
                    found.append(f"{number}: {row.type} without {' or '.join(wanted)} of the same acquisition")
        try:
            make_plan(self.rows)
        except InputError as error:
            found.append(str(error))
        return found

    def _accept(self) -> str:
        try:
            self._outputs()
        except InputError as error:
            return f"not yet: {error}"
        self.finished = True
        return ""

    def _names(self) -> str:
        try:
            return "\n".join(self._outputs())
        except InputError as error:
            return str(error)

    def _outputs(self) -> list[str]:
        """Files that would be written; raises :class:`InputError` if the table cannot be converted."""
        return [f"{path}.nii.gz" for unit in make_plan(self.rows) for path in unit.outputs]

    def _changes(self, assignments: Sequence[str]) -> dict[str, object]:
        return _changes(assignments)

    def drawing(self) -> RichTable:
        """The table for a terminal."""
        return rich_table(self.rows)

    def _change(self, which: str, assignments: Sequence[str]) -> str:
        numbers = line_numbers(which, len(self.rows))
        changes = self._changes(assignments)
        if not changes:
            raise InputError("expected cell=value, such as type=phase; help lists the commands")
        rows = list(self.rows)
        for number in numbers:
            rows[number - 1] = rows[number - 1].edited(**changes)
        self._history.append(self.rows)
        self.rows = rows
        return f"changed {len(numbers)} line{'s' if len(numbers) > 1 else ''}"


def line_numbers(text: str, count: int) -> list[int]:
    """Numbers of lines: ``3``, ``3-5``, ``1,4-6`` or ``all``.

    Raises
    ------
    InputError
        If the text is something else, or names lines that are not there.
    """
    if text == "all":
        return list(range(1, count + 1))
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise InputError(f"expected a command or the number of a line, found {text!r}; help lists the commands")
        numbers += range(int(first), int(last if dash else first) + 1)
    wrong = [n for n in numbers if not 1 <= n <= count]
    if wrong or not numbers:
        raise InputError(f"expected lines from 1 to {count}, found {text!r}")
    return list(dict.fromkeys(numbers))


def _changes(assignments: Sequence[str]) -> dict[str, object]:
    changes: dict[str, object] = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign and name in TYPES:
            changes["type"] = name
            continue
        if not sign or name not in CELLS:
            raise InputError(f"expected one of {', '.join(CELLS)} = value, found {text!r}")
        cell = CELLS[name]
        if cell in _NUMBERS:
            if value and not value.isdigit():
                raise InputError(f"{name}: expected a number, found {value!r}")
            changes[cell] = int(value or 0)
        else:
            changes[cell] = value
    if changes.get("type") == "skip":
        changes.setdefault("suffix", "skip")
    return changes


def _same_acquisition(a: Row, b: Row) -> bool:
    names = ("subject", "session", "acquisition", "reconstruction", "run", "inversion", "suffix", "combined")
    return a.type in PARTS and all(getattr(a, name) == getattr(b, name) for name in names)


def cells_of(row: Row) -> tuple[str, ...]:
    """Texts of one line, without its number."""
    times = row.echo_times
    echoes = "" if not times else f"{len(times)} ({', '.join(f'{t * 1e3:.3g}' for t in times[:8])})"
    source = row.source
    return (
        row.subject, row.session, str(source.series_number), source.series_description, "/".join(row.image_type[2:]),
        f"{source.columns}x{source.rows}x{row.slices}", echoes, "" if row.combined else str(len(row.coils)),
        str(row.repetitions) if row.repetitions > 1 else "", row.type,
        "" if row.type == "skip" else row.suffix, row.acquisition if row.type != "skip" else "",
        row.reconstruction, str(row.run or ""), str(row.inversion or ""),
    )  # fmt: skip


COLUMNS = (
    "sub", "ses", "series", "description", "image type", "matrix", "echoes (ms)", "coils", "rep.", "type", "suffix",
    "acq", "rec", "run", "inv",
)  # fmt: skip


def rich_table(rows: Sequence[Row]) -> RichTable:
    """The table of a DICOM tree for a terminal."""
    colours = {"mag": "green", "phase": "cyan", "real": "blue", "imag": "blue", "T1w": "magenta", "fieldmap": "yellow"}
    marks = [f"{number}{'!' if row.warnings else ''}" for number, row in enumerate(rows, 1)]
    may_break = ("sub", "description", "image type", "echoes (ms)", "acq")
    styles = [{"type": colours.get(row.type, "dim")} for row in rows]
    return draw(COLUMNS, [cells_of(row) for row in rows], marks, may_break, styles)


def draw(
    columns: Sequence[str],
    lines: Sequence[Sequence[str]],
    marks: Sequence[str],
    may_break: Sequence[str],
    styles: Sequence[Mapping[str, str]],
) -> RichTable:
    """A table for a terminal; columns that are empty throughout are left out.

    Parameters
    ----------
    columns, lines
        Heads and texts.
    marks
        What stands before each line.
    may_break
        Columns that may be folded if the terminal is narrow.
    styles
        For every line, the style of some of its columns.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = [i for i in range(len(columns)) if any(line[i] for line in lines)]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", justify="right", style="dim", no_wrap=True)
    for i in shown:
        longest = max(len(line[i]) for line in lines)
        folds = columns[i] in may_break
        table.add_column(columns[i], overflow="fold", no_wrap=not folds, min_width=min(longest, 12) if folds else None)
    for mark, line, style in zip(marks, lines, styles, strict=True):
        table.add_row(mark, *(Text(line[i], style=style.get(columns[i], "")) for i in shown))
    return table
