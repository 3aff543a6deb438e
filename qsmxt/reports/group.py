"""The page of the group: one HTML file that holds everything it shows and needs no network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from qsmxt.algorithms.statistics import group as statistics
from qsmxt.bids.atomic import write_bytes
from qsmxt.reports import page

Row = Mapping[str, Any]

#: Most rows of a table on the page; the file holds all.
_SHOWN = 300

#: Most panels of a figure, and most points of a panel that are all links.
_PANELS, _MOST_LINKS = 24, 300

#: Bytes of pictures of single scans on the page; those that stand out come first.
BUDGET = 8_000_000

#: Windows of the pictures of the template.
_PICTURES = (
    ("desc-mean_T2starw", (0.0, 1.6), "Mean magnitude"),
    ("desc-mean_Chimap", (-0.1, 0.1), "Mean susceptibility, -0.1 (black) to 0.1 ppm (white)"),
    ("desc-std_Chimap", (0.0, 0.1), "Standard deviation of susceptibility, 0 (black) to 0.1 ppm (white)"),
    ("desc-mean_R2starmap", (0.0, 60.0), "Mean R2*, 0 (black) to 60 1/s (white)"),
)

_TITLES = {
    "summary": "Regions", "effects": "Effects of covariates", "models": "Models",
    "voxelwise": "Models at every voxel of the template (permutation, threshold-free cluster enhancement)",
    "agreement": "Agreement of sessions",
    "quality": "Quality of scans",
}  # fmt: skip


def write_group_report(
    out_dir: Path, tables: Mapping[str, Sequence[Row]], missing: Sequence[str], statistic: str = "mean"
) -> Path:
    """Write ``group.html`` from the tables and from what the template left in the output dataset.

    Parameters
    ----------
    out_dir
        Root of the output dataset.
    tables
        Rows by the name of the table.
    missing
        Scans without results.
    statistic
        What of a region is plotted.
    """
    long = tables.get("long", ())
    parts = [
        *_template_parts(out_dir),
        ("Regions by group", region_figures(long, statistic)),
        ("Agreement of sessions (Bland-Altman)", agreement_figures(long, statistic)),
        ("Distribution of quality", quality_figures(tables.get("quality", ()))),
        *((title, _rows(tables.get(name, ()), f"group_{name}_stats.tsv")) for name, title in _TITLES.items()),
    ]
    shown = [(f"part-{number}", title, content) for number, (title, content) in enumerate(parts, 1) if content]
    links = "".join(f'<li><a href="#{anchor}">{escape(title)}</a></li>' for anchor, title, _ in shown)
    sections = [f'<nav aria-label="Contents"><ul>{links}</ul></nav>', "<main>", _missing(missing)]
    for anchor, title, content in shown:
        sections += [page.heading(2, title, anchor), *content]
    body = [page.heading(1, "QSMxT: group"), *sections, "</main>"]
    return write_bytes(out_dir / "group.html", page.document("QSMxT: group", body))


def _missing(missing: Sequence[str]) -> str:
    if not missing:
        return "<p>All scans of the dataset that are known have results.</p>"
    return f'<p class="warning">Without results, left out: {escape(", ".join(missing))}</p>'


def _rows(rows: Sequence[Row], file: str) -> list[str]:
    """A table that unfolds, if it has rows."""
    if not rows:
        return []
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(_cell(name, row.get(name)) for name in columns) + "</tr>" for row in list(rows)[:_SHOWN]
    )
    more = f"<p>{len(rows) - _SHOWN} more rows in {escape(file)}</p>" if len(rows) > _SHOWN else ""
    table = page.scrolled(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", file)
    return [f"<details open><summary>{escape(file)}</summary>{table}{more}</details>"]


def _cell(name: str, value: Any) -> str:
    if name == "participant_id" and isinstance(value, str):
        return f'<td><a href="{escape(value)}.html">{escape(value)}</a></td>'
    if isinstance(value, float):
        return f"<td>{value:.4g}</td>" if np.isfinite(value) else "<td></td>"
    return f"<td>{escape(str(value)) if value is not None else ''}</td>"


def _template_parts(out_dir: Path) -> list[tuple[str, list[str]]]:
    """All templates in the dataset."""
    parts = []
    for path in sorted((out_dir / "logs" / "group").glob("tpl-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "rounds" in record:
            content = _template(out_dir, record, path.relative_to(out_dir).as_posix())
            parts.append((f"Template {record['cohort']}", content))
    return parts


def _template(out_dir: Path, record: Row, file: str) -> list[str]:
    """Mosaics of the template, convergence, and the strip of aligned scans."""
    cohort = str(record["cohort"])
    stem = out_dir / f"tpl-{cohort}" / "anat" / f"tpl-{cohort}"
    mask = _volume(Path(f"{stem}_label-brain_mask.nii.gz"))
    sections = []
    for name, window, title in _PICTURES:
        path = Path(f"{stem}_{name}.nii.gz")
        if path.is_file():
            from qsmxt.reports.figures import mosaic, png

            sections.append(_image(png(mosaic(_volume(path), mask, window)), title))
    rounds = [{"round": number, **metrics} for number, metrics in enumerate(record.get("rounds", ()))]
    sections += ["<h3>Convergence, round by round</h3>", *_rows(rounds, file)]
    return [*sections, *_strip(out_dir, record, mask)]


def alignment_outliers(scans: Sequence[Row]) -> list[bool]:
    """Which scans are much less like the template than the others, in either channel."""
    flags = np.zeros(len(scans), dtype=bool)
    for key in ("similarity_reference", "similarity_guide"):
        values = np.array([float(scan[key]) for scan in scans])
        flags |= statistics.outliers(values) & (values < np.median(values) - 0.02)
    return flags.tolist()


def _strip(out_dir: Path, record: Row, mask: Any) -> list[str]:
    """Pictures of the scans, those first that are less like the template than the others."""
    from qsmxt.reports.figures import mosaic, png

    sections, left = ["<h3>Scans on the template</h3>"], BUDGET
    scans = record.get("scans", ())
    flagged = zip(scans, alignment_outliers(scans), strict=True)
    for scan, outlier in sorted(flagged, key=lambda pair: not pair[1]):
        name = str(scan["scan"])
        found = sorted(out_dir.glob(f"{name.partition('_')[0]}/**/{name}_space-{record['cohort']}_Chimap.nii.gz"))
        if not found:
            continue
        picture = png(mosaic(_volume(found[0]), mask, (-0.1, 0.1), count=5)) if left > 0 else b""
        left -= len(picture)
        alike = f"magnitude {scan['similarity_reference']:.3f}, susceptibility {scan['similarity_guide']:.3f}"
        title = f"{name}: correlation with the mean: {alike}"
        if outlier:
            sections.append(page.paragraph("warning", f"{name} is less like the template than the others"))
        shown = _image(picture, title) if picture else "<p>Left out, as this page holds no more pictures.</p>"
        sections.append(f"<details{' open' if outlier else ''}><summary>{escape(title)}</summary>{shown}</details>")
    return sections


def _volume(path: Path) -> Any:
    import nibabel

    from qsmxt.reports.figures import upright

    image: Any = nibabel.load(path)  # type: ignore[attr-defined]
    return upright(np.asarray(image.dataobj, dtype=np.float32), image.affine)


def _image(data: bytes, title: str, links: Sequence[tuple[float, float, str]] = ()) -> str:
    text = base64.b64encode(data).decode()
    image = f'<img alt="{escape(title)}" src="data:image/png;base64,{text}">'
    if links:
        points = "".join(
            f'<a href="{escape(name)}.html" title="{escape(name)}" aria-label="{escape(name)}" '
            f'style="left:{left:.2f}%;top:{top:.2f}%"></a>'
            for left, top, name in links
        )
        image = f'<div class="points">{image}{points}</div>'
    return f"<figure>{page.scrolled(image, title)}<figcaption>{escape(title)}</figcaption></figure>"


def region_figures(long: Sequence[Row], statistic: str) -> list[str]:
    """For every covariate a figure with a panel a region: points by level, or against the number with the line."""
    grouped = _grouped(long, statistic)
    if not grouped:
        return []
    rows = next(iter(grouped.values()))
    known = list(dict.fromkeys(name for row in rows for name in row))
    covariates = known[: known.index("map")]
    figures = []
    for name in covariates:
        levels = {row.get(name) for row in rows if row.get(name) is not None}
        numeric = all(isinstance(level, float) for level in levels)
        if len(levels) < 2 or name in ("participant_id", "session_id") or (not numeric and len(levels) > 6):
            continue
        draw = _draw_line if numeric else _draw_levels
        figures.append(
            _panels(grouped, f"{statistic} by {name}", lambda axes, own, d=draw, n=name: d(axes, own, n, statistic))
        )
    return figures


def _grouped(long: Sequence[Row], statistic: str) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row, label in zip(long, statistics.region_labels(long), strict=True):
        if isinstance(row.get(statistic), float):
            grouped.setdefault(f"{row['map']}: {label}", []).append(row)
    return grouped


def _draw_levels(axes: Any, rows: Sequence[Row], name: str, statistic: str) -> None:
    levels = sorted({str(row[name]) for row in rows if row.get(name) is not None})
    for place, level in enumerate(levels):
        values = np.array([row[statistic] for row in rows if str(row.get(name)) == level])
        spread = (np.arange(values.size) % 7 - 3) / 25
        axes.plot(place + spread, values, "o", markersize=3, alpha=0.7)
        axes.hlines(values.mean(), place - 0.25, place + 0.25, color="black")
    axes.set_xticks(range(len(levels)), levels, fontsize=7)


def _draw_line(axes: Any, rows: Sequence[Row], name: str, statistic: str) -> None:
    pairs = np.array([[row[name], row[statistic]] for row in rows if row.get(name) is not None], dtype=float)
    axes.plot(pairs[:, 0], pairs[:, 1], "o", markersize=3, alpha=0.7)
    found = statistics.association(pairs[:, 0], pairs[:, 1])
    if found is not None:
        ends = np.array([pairs[:, 0].min(), pairs[:, 0].max()])
        axes.plot(ends, found.intercept + found.slope * ends, color="black", linewidth=1)


def agreement_figures(long: Sequence[Row], statistic: str) -> list[str]:
    """Difference of the first two sessions against their mean, with bias and limits."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for region, rows in _grouped(long, statistic).items():
        people: dict[str, dict[str, float]] = {}
        for row in rows:
            if "session_id" in row:
                people.setdefault(row["participant_id"], {}).setdefault(row["session_id"], row[statistic])
        both = [tuple(own[session] for session in sorted(own)[:2]) for own in people.values() if len(own) > 1]
        if len(both) > 1:
            pairs[region] = [(a, b) for a, b in both]
    return [_panels(pairs, f"difference of {statistic} against its mean", _draw_agreement)] if pairs else []


def _draw_agreement(axes: Any, pairs: Sequence[tuple[float, float]]) -> None:
    values = np.array(pairs)
    found = statistics.agreement(values[:, 0], values[:, 1])
    axes.plot(values.mean(axis=1), values[:, 1] - values[:, 0], "o", markersize=3)
    if found is not None:
        for level, style in ((found.bias, "-"), (found.low, "--"), (found.high, "--")):
            axes.axhline(level, linestyle=style, color="black", linewidth=0.8)


def quality_figures(rows: Sequence[Row]) -> list[str]:
    """Distribution of every number in the records; outliers are named, points lead to the page of the participant."""
    numbers: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, (int, float)) and np.isfinite(value):
                numbers.setdefault(name, []).append((str(row["participant_id"]), float(value)))
    several = {name: values for name, values in numbers.items() if len({value for _, value in values}) > 1}
    return [_panels(several, "quality of scans", _draw_quality)] if several else []


def _draw_quality(axes: Any, values: Sequence[tuple[str, float]]) -> list[tuple[float, float, str]]:
    """Draws the values; returns points that are links, all of them or, of many, the outliers."""
    x = np.array([value for _, value in values])
    y = (np.arange(x.size) % 7 - 3) / 10
    axes.plot(x, y, "o", markersize=3, alpha=0.7)
    flags = statistics.outliers(x)
    for (name, value), flagged in zip(values, flags, strict=True):
        if flagged:
            axes.annotate(name, (value, 0.35), fontsize=6, rotation=45)
    axes.set_yticks([])
    axes.set_ylim(-0.6, 0.9)
    chosen = range(x.size) if x.size <= _MOST_LINKS else np.flatnonzero(flags)
    return [(float(x[k]), float(y[k]), values[k][0]) for k in chosen]


def _panels(content: Mapping[str, Any], title: str, draw: Callable[..., Any]) -> str:
    """A figure with a panel for every entry, as PNG in HTML; points that ``draw`` returns are links on it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    shown = list(content.items())[:_PANELS]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    wide, high = 3 * columns, 2.2 * lines
    figure = Figure(figsize=(wide, high))
    figure.subplots_adjust(0.55 / wide, 0.35 / high, 1 - 0.1 / wide, 1 - 0.3 / high, wspace=0.3, hspace=0.35)
    links: list[tuple[float, float, str]] = []
    for number, (name, values) in enumerate(shown):
        axes = figure.add_subplot(lines, columns, number + 1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        points = draw(axes, values) or []
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        links += [(*_share(figure, axes, x, y), text) for x, y, text in points]
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    left = len(content) - len(shown)
    return _image(buffer.getvalue(), title + (f" ({left} more in the tables)" if left > 0 else ""), links)


def _share(figure: Any, axes: Any, x: float, y: float) -> tuple[float, float]:
    """Place of a point of a panel in the figure, percent from the left and from the top."""
    axes.get_xlim()  # settles the limits
    across, up = figure.transFigure.inverted().transform(axes.transData.transform((x, y)))
    return 100 * float(across), 100 * (1 - float(up))
