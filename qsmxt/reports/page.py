"""Pieces of HTML: style, script, tables, pictures, plots. Whatever is text is escaped here."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

#: Bytes of pictures that a page holds; further ones are linked to their files.
BUDGET = 6_200_000

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 1rem 2rem; color: #1c1c1c; }
h1 { font-size: 1.6rem; } h2 { border-bottom: 2px solid #bbb; font-size: 1.3rem; margin-top: 3rem; }
h1, h2, h3, td, th, li, p { overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; list-style: none; padding: 0; }
a { color: #0b57a4; } :focus-visible { outline: 3px solid #0b57a4; outline-offset: 2px; }
.scroll { overflow-x: auto; } .scroll td, .scroll th { overflow-wrap: break-word; min-width: 5rem; }
table { border-collapse: collapse; font-size: .92rem; }
td, th { border: 1px solid #ccc; padding: .25rem .6rem; text-align: left; vertical-align: top; }
thead th { background: #f0f0f0; }
figure { background: #000; color: #eee; margin: .8rem 0; padding: .5rem; }
figure .scroll img { display: block; margin: auto; max-width: 100%; }
figcaption { font-size: .9rem; text-align: center; }
.points { margin: auto; max-width: 100%; position: relative; width: fit-content; }
.points a { border-radius: 4px; height: 8px; margin: -4px; position: absolute; width: 8px; }
.points a:hover { outline: 2px solid #0b57a4; }
.plot { background: none; color: inherit; border: 1px solid #ccc; }
.plot svg { display: block; margin: auto; max-width: 100%; }
.note, .warning, .error { border-left: 5px solid #777; background: #f3f3f3; margin: .4rem 0; padding: .35rem .8rem; }
.warning { background: #fff4d6; border-color: #a86f00; } .error { background: #fde7e7; border-color: #b00000; }
.error { white-space: pre-wrap; } pre { background: #f6f6f6; overflow-x: auto; padding: .6rem; font-size: .82rem; }
td.grade { font-weight: 600; white-space: nowrap; min-width: 0; } .good { color: #136b2b; } .look { color: #8a5a00; }
.poor { color: #b00000; } .followed { color: #136b2b; } .departs { color: #8a5a00; }
.viewer { border: 1px solid #ccc; margin: .8rem 0; padding: .5rem; }
.viewer .slice { background: #000; height: 24rem; position: relative; }
.viewer canvas { display: block; height: 100%; width: 100%; }
.viewer fieldset { border: 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 0; padding: .2rem 0; }
.viewer legend { float: left; font-weight: 600; padding: 0 1rem 0 0; }
.viewer .axes { display: grid; gap: .2rem 1rem; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
.viewer input[type=range] { width: 100%; } .viewer output { display: block; min-height: 3em; padding: .3rem 0; }
[hidden] { display: none !important; }
@media (max-width: 40rem) {
  body { padding: .6rem; } td:nth-child(5):last-child { min-width: 14rem; } figure { padding: .2rem; }
  figure .scroll img { max-width: none; width: 44rem; } .points { max-width: none; }
}
@media print {
  body { font-size: 10pt; max-width: none; padding: 0; } nav, .viewer { display: none; }
  figure, tr, .warning, .error, .note { break-inside: avoid; } h2, h3 { break-after: avoid; }
  figure { background: none; color: #000; } .scroll { overflow: visible; }
}
"""

#: Script of the page.
SCRIPT = (Path(__file__).parents[1] / "data" / "viewer" / "page.js").read_text(encoding="utf-8")


def document(title: str, body: Iterable[str], digests: Iterable[str] = ()) -> bytes:
    """The whole page, UTF-8. Its policy lets only this script run, and those of the SHA-256 ``digests`` (base 64).

    Nothing but pictures is loaded, and nothing is asked of the network.
    """
    script = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    allowed = " ".join(f"'sha256-{digest}'" for digest in (script, *digests))
    policy = (
        "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
    head = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>"
    )
    parts = [head, *(part for part in body if part), f"<script>{SCRIPT}</script>\n</body></html>\n"]
    return b"\n".join(part.encode() for part in parts)


def heading(level: int, text: str, anchor: str = "") -> str:
    """A heading, which links can point to."""
    return f"<h{level}{f' id={chr(34)}{escape(anchor)}{chr(34)}' if anchor else ''}>{escape(text)}</h{level}>"


def paragraph(kind: str, text: str) -> str:
    """A paragraph of a class: ``note``, ``warning``, ``error``."""
    return f'<p class="{kind}">{escape(text)}</p>'


def facts(rows: Mapping[str, str]) -> str:
    """A table of two columns."""
    cells = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>' for key, value in rows.items()
    )
    return scrolled(f"<table><tbody>{cells}</tbody></table>", "Table") if cells else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], label: str) -> str:
    """A table with a head; a cell that is a grade (``grade: good``) is marked with its colour and its word."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return scrolled(f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>", label)


def _cell(text: str) -> str:
    kind, _, word = text.partition(": ")
    if kind == "grade" and word.replace(" ", "").isalpha():
        return f'<td class="grade {word.split()[0]}">{word}</td>'
    return f"<td>{escape(text)}</td>"


def scrolled(content: str, label: str) -> str:
    """What may be wider than the window; it can be scrolled with the keyboard."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'


def folded(title: str, content: str) -> str:
    """Content that opens on demand."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


class Pictures:
    """Pictures of a page: in it as far as the budget reaches, behind links to their files from there on."""

    def __init__(self, out_dir: Path, budget: int = BUDGET) -> None:
        self.out_dir, self.left = out_dir, budget

    def source(self, relative: str) -> str:
        """Value of ``src`` (needs no escape) of a file below the dataset's root; empty if there is no such file."""
        path = self.out_dir / relative
        try:
            content = path.read_bytes()
        except OSError:
            return ""
        text = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        if len(text) > self.left:
            return quote(relative)
        self.left -= len(text)
        return text

    def figure(self, relative: str, title: str, subject: str) -> str:
        """A mosaic with its caption."""
        source = self.source(relative)
        if not source:
            return ""
        alt = f"{title}; slices in three planes of {subject}"
        image = f'<img alt="{escape(alt)}" src="{source}">'
        return f"<figure>{scrolled(image, title)}<figcaption>{escape(title)}</figcaption></figure>"


def histogram(values: Mapping[str, Any], title: str) -> str:
    """Bars of a histogram; the outermost hold what lies beyond."""
    shares, low, high = [float(v) for v in values["shares"]], float(values["low"]), float(values["high"])
    peak, count = max([*shares, 1e-12]), len(shares)
    bars = "".join(
        f'<rect x="{10 + 580 * i / count:.1f}" y="{150 - 140 * share / peak:.1f}" width="{580 / count:.2f}" '
        f'height="{140 * share / peak:.1f}" fill="#3a6ea5"/>'
        for i, share in enumerate(shares)
        if share > 0
    )
    return _plot(f'<svg viewBox="0 0 600 175" width="600" {_role(title)}>{bars}{_axis(low, high)}</svg>', title)


#: Colours and dashes of curves, which differ in brightness as well.
_CURVES = (("#0b3c6f", ""), ("#c2410c", "6 3"), ("#4d7c0f", "2 3"), ("#7e22ce", "9 3 2 3"), ("#555", "12 4"))


def curves(values: Mapping[str, Sequence[float]], title: str, bounds: tuple[float, float]) -> str:
    """Histograms of several tissues over one axis, each of its own height 1."""
    if not values:
        return ""
    lines, legend = [], []
    for number, ((name, shares), (colour, dash)) in enumerate(zip(values.items(), _CURVES, strict=False)):
        peak = max([*shares, 1e-12])
        points = " ".join(
            f"{10 + 580 * (i + 0.5) / len(shares):.1f},{150 - 140 * share / peak:.1f}" for i, share in enumerate(shares)
        )
        style = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        lines.append(f'<polyline points="{points}" fill="none" {style}/>')
        y = 16 + 18 * number
        legend.append(
            f'<line x1="420" x2="450" y1="{y - 4}" y2="{y - 4}" {style}/>'
            f'<text x="456" y="{y}" font-size="13">{escape(name)}</text>'
        )
    drawn = "".join([*lines, *legend])
    return _plot(f'<svg viewBox="0 0 600 175" width="600" {_role(title)}>{drawn}{_axis(*bounds)}</svg>', title)


def _axis(low: float, high: float) -> str:
    places = ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    ticks = "".join(
        f'<text x="{10 + 580 * part:.0f}" y="168" font-size="13" text-anchor="{anchor}">'
        f"{low + (high - low) * part:+.2g}</text>"
        for part, anchor in places
    )
    return f'<line x1="10" x2="590" y1="150" y2="150" stroke="#333"/>{ticks}'


def bars(values: Mapping[str, float], title: str) -> str:
    """Horizontal bars with their names and values."""
    if not values:
        return ""
    low, high = min(0.0, *values.values()), max(0.0, *values.values())
    scale = 300 / ((high - low) or 1.0)
    zero = 190 - low * scale
    rows = []
    for i, (name, value) in enumerate(values.items()):
        y = 4 + 20 * i
        left = zero + min(0.0, value) * scale
        rows.append(
            f'<text x="180" y="{y + 13}" font-size="13" text-anchor="end">{escape(name[:26])}</text>'
            f'<rect x="{left:.1f}" y="{y}" width="{abs(value) * scale:.1f}" height="15" fill="#3a6ea5"/>'
            f'<text x="500" y="{y + 13}" font-size="13">{value:+.3f}</text>'
        )
    line = f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{4 + 20 * len(values)}" stroke="#333"/>'
    height = 8 + 20 * len(values)
    return _plot(f'<svg viewBox="0 0 560 {height}" width="560" {_role(title)}>{"".join(rows)}{line}</svg>', title)


def _role(title: str) -> str:
    return f'role="img" aria-label="{escape(title)}"'


def _plot(svg: str, title: str) -> str:
    return f'<figure class="plot">{svg}<figcaption>{escape(title)}</figcaption></figure>'
