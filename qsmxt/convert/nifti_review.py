"""Look at the table of NIfTI volumes and change it: the commands of :mod:`qsmxt.convert.review` on other cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from qsmxt.convert.nifti import output_of
from qsmxt.convert.nifti_table import COLUMNS, SUFFIXES, NiftiRow, check_table
from qsmxt.convert.review import _HELP, Review, draw
from qsmxt.convert.table import PARTS
from qsmxt.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

#: Columns that can be changed; the others say which volume it is.
EDITABLE = tuple(name for name in COLUMNS if name not in ("path", "volume"))


class NiftiReview(Review):
    """A table of :class:`~qsmxt.convert.nifti_table.NiftiRow` that is being looked at."""

    help: ClassVar[str] = _HELP.format(
        example="part=phase acq=QSM", words=f"so can be given: {', '.join((*PARTS, *SUFFIXES))}",
        cells=", ".join(EDITABLE),
    )  # fmt: skip

    def warnings(self) -> list[str]:
        """Everything that keeps the table from being converted."""
        return check_table(self.rows)

    def drawing(self) -> RichTable:
        """The table for a terminal."""
        return rich_table(self.rows)

    def _outputs(self) -> list[str]:
        problems = check_table(self.rows)
        if problems:
            raise InputError("; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else ""))
        return [f"{output_of(row, self.rows)}.nii.gz" for row in self.rows if row.suffix != "skip"]

    def _changes(self, assignments: Sequence[str]) -> dict[str, object]:
        changes: dict[str, object] = {}
        for text in assignments:
            name, sign, value = text.partition("=")
            if not sign and name in (*PARTS, *SUFFIXES):
                changes["part" if name in PARTS else "suffix"] = name
            elif sign and name in EDITABLE:
                changes[name] = value
            else:
                raise InputError(f"expected one of {', '.join(EDITABLE)} = value, found {text!r}")
        return changes


def rich_table(rows: Sequence[NiftiRow]) -> RichTable:
    """The table for a terminal."""
    lines = [
        [row.path, str(row.volume) if row.volumes > 1 else "", "x".join(map(str, row.shape)),
         *(_text(getattr(row, COLUMNS[name])) for name in EDITABLE)]
        for row in rows
    ]  # fmt: skip
    colours = {"mag": "green", "phase": "cyan", "real": "blue", "imag": "blue"}
    styles = [{"part": colours.get(row.part, ""), "suffix": "dim" if row.suffix == "skip" else ""} for row in rows]
    marks = [str(number) for number in range(1, len(rows) + 1)]
    may_break = ("path", "sub", "acq", "MagneticFieldStrength")  # the last for its head
    return draw(("path", "volume", "matrix", *EDITABLE), lines, marks, may_break, styles)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value or "")
