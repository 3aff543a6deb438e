"""The slice viewer of a page: maps and outlines of a unit as small files in it, and niivue to show them.

The library, https://niivue.com (BSD-2-Clause), lies in the package data as one compressed file; ``tools/niivue.py``
renews it. It is put once into a page that has something to show, and the page's policy admits it by its SHA-256.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from qsmxt.reports.figures import CONTOURS
from qsmxt.reports.overlays import Outlined

#: Folder of the library.
FOLDER = Path(__file__).parents[1] / "data" / "viewer"

#: Bytes of maps and labels that a page holds, and what one viewer may take of them even if there are many.
BUDGET, LEAST = 7_900_000, 1_700_000

#: Colours of the labels of the mask: those of its outlines in pictures.
MASK_COLOURS = [list(colour) for colour in CONTOURS[:2]]

_KEYS = "arrow keys, page up and page down move the cross"

_PLANES = (("all", "Three"), ("0", "Sagittal"), ("1", "Coronal"), ("2", "Axial"))


def library_record() -> dict[str, str]:
    """Name, version, licence and SHA-256 of the library."""
    record: dict[str, str] = json.loads((FOLDER / "niivue.json").read_text(encoding="utf-8"))
    return record


class Viewers:
    """Viewers of a page: they share its budget, and the last ones are left out where they are many."""

    def __init__(self, out_dir: Path, expected: int = 1, budget: int = BUDGET, least: int = LEAST) -> None:
        self.out_dir, self.expected, self.left, self.least = out_dir, expected, budget, least
        self.count, self._share = 0, 0

    def section(self, layout: Mapping[str, Any], labels: Iterable[Outlined], subject: str, group: str) -> str:
        """The viewer of a unit; a sentence in its place if its map does not fit."""
        overlays = [{**entry, "colours": MASK_COLOURS} for entry in layout.get("overlays", ())]
        overlays += [{"name": one.name, "file": one.volume, "labels": one.names} for one in labels if one.volume]
        first, *others = list(layout.get("maps", ())) or [{}]
        self._share = min(self.left, max(self.left // max(1, self.expected), self.least))
        self.expected -= 1
        blocks, kept = [], {"maps": [], "overlays": []}  # type: tuple[list[str], dict[str, list[dict[str, Any]]]]
        for kind, entry in [("maps", first), *(("overlays", o) for o in overlays), *(("maps", o) for o in others)]:
            text = self._file(str(entry.get("file", "")))
            if text:
                blocks.append(_block(text, **{f"data-{kind}": str(len(kept[kind]))}))
                kept[kind].append({key: value for key, value in entry.items() if key != "file"})
            elif entry is first:
                note = "Slices to leaf through are left out, as this page holds no more; the pictures show the maps."
                return f"<p>{note}</p>" if layout.get("maps") else ""
        self.count += 1
        return _section(kept, subject, group) + "".join(blocks) + "</section>"

    def _file(self, relative: str) -> str:
        path = self.out_dir / relative
        if not relative or not path.is_file():
            return ""
        text = base64.b64encode(path.read_bytes()).decode()
        if len(text) > self._share:
            return ""
        self._share -= len(text)
        self.left -= len(text)
        return text

    def library(self) -> str:
        """The library, if there is a viewer."""
        return _library() if self.count else ""

    def script_digests(self) -> list[str]:
        """SHA-256 (base 64) of the scripts that the viewers need."""
        return [base64.b64encode(bytes.fromhex(library_record()["sha256"])).decode()] if self.count else []


@functools.cache
def _library() -> str:
    about = library_record()
    licence = f"<!-- {about['name']} {about['version']}, {about['license']}\n"
    licence += (FOLDER / "niivue.LICENSE").read_text(encoding="utf-8") + "-->\n"
    return licence + _block(base64.b64encode((FOLDER / "niivue.js.gz").read_bytes()).decode(), id="niivue")


def _block(text: str, **attributes: str) -> str:
    """Data in a page: a script of a type that no browser runs."""
    words = " ".join(f'{name}="{escape(value)}"' for name, value in attributes.items())
    return f'<script type="application/gzip" {words}>{text}</script>\n'


def _section(kept: Mapping[str, list[dict[str, Any]]], subject: str, group: str) -> str:
    """All but the files and the end."""
    maps = [(str(number), str(entry["name"])) for number, entry in enumerate(kept["maps"])]
    outlines = [("none", "none"), *((str(number), str(entry["name"])) for number, entry in enumerate(kept["overlays"]))]
    axes = "".join(
        f'<label>{name}<input type="range" min="0" max="1" value="0"></label>'
        for name in ("Left to right", "Back to front", "Bottom to top")
    )
    layout = json.dumps(kept, ensure_ascii=True, sort_keys=True).replace("<", "\\u003c")
    return (
        f'<section class="viewer" hidden aria-label="Slices of {escape(subject)}">'
        + _choice("map", "Map", maps, group)
        + _choice("overlay", "Outlines", outlines, group)
        + _choice("plane", "Planes", _PLANES, group)
        + '<div class="slice"><canvas tabindex="0" role="img" '
        f'aria-label="Slices of {escape(subject)}; {_KEYS}"></canvas></div>'
        f'<output>Loading</output><div class="axes">{axes}</div>'
        f'<script type="application/json" class="layout">{layout}</script>'
    )


def _choice(name: str, title: str, options: Iterable[tuple[str, str]], group: str) -> str:
    buttons = "".join(
        f'<label><input type="radio" name="{name}-{escape(group)}" data-choice="{name}" value="{value}"'
        f"{'' if number else ' checked'}> {escape(text)}</label>"
        for number, (value, text) in enumerate(options)
    )
    return f"<fieldset><legend>{title}</legend>{buttons}</fieldset>"
