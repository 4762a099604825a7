"""One HTML page about experiments: it holds all that it shows, runs no script and asks no network for anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from compress import outputs
from compress.ledger import Cell, Row, caption, readable
from compress.report import gallery, pareto, plots, shots
from compress.report.collect import Experiment, collect, failed
from compress.report.compare import compare
from compress.report.findings import distinct, fastest, recommended, same_figures
from compress.report.gallery import Plot
from compress.report.sections import gates_table, headline, inline, provenance, summary
from compress.report.wording import change, points

# The page may use its own styles and embedded images, and nothing else: no script, no request.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
FRONTS, TRAINING, SENSITIVITY, CHANNELS = "Score against size and latency", "Training", "Sensitivity", "Channels"
Figures = Mapping[str, Sequence[Plot]]


def write_report(folders: Sequence[Path], out: Path, *, images: int = 4, plot_folder: Path | None = None) -> list[Path]:
    """Write the report on the experiments in `folders` to `out`, and its plots as PNG and SVG into `plot_folder`; returns the files.

    images: validation images to show every artefact's answers on; with 0 no network is run.
    Raises CompressError for a folder that is no experiment, and, before any work, for a file that cannot be written or is a user's own.
    """
    outputs.check_file(out)
    if plot_folder:
        outputs.check_folder(plot_folder)
    experiments = collect(folders)
    fronts = gallery.front_plots(experiments)
    figures = {experiment.name: figures_of(experiment) for experiment in experiments}
    drawn = [*fronts, *(plot for groups in figures.values() for group in groups.values() for plot in group)]
    if plot_folder:
        outputs.claim(plot_folder, [f"{plot.name}.{kind}" for plot in drawn for kind in ("png", "svg")])
    compared = {experiment.name: compare(experiment, images) for experiment in experiments if images}
    outputs.write({out: page(experiments, fronts, figures, compared).encode()})
    if plot_folder is None:
        return [out]
    return [out, *(file for plot in drawn for file in plots.save(plot.figure, plot_folder / plot.name, plot.weights))]


def figures_of(experiment: Experiment) -> Figures:
    """Heading -> the plots of one experiment alone."""
    return {
        TRAINING: gallery.training_plots(experiment),
        SENSITIVITY: gallery.sensitivity_plots(experiment),
        CHANNELS: gallery.channel_plots(experiment),
    }


def page(
    experiments: Sequence[Experiment], fronts: Sequence[Plot], figures: Mapping[str, Figures], compared: Mapping[str, dict[str, Any]]
) -> str:
    """The whole document. figures, compared: by the experiment's name."""
    several = len(experiments) > 1
    title = "Compression report: " + ", ".join(experiment.name for experiment in experiments)
    results = "".join(heading(experiment, several) + headline(experiment) for experiment in experiments)
    body = [section("Result", (summary(experiments) if several else "") + results)]
    body.append(section("Table", "".join(heading(experiment, several) + table(experiment) for experiment in experiments)))
    held = [heading(experiment, several) + gates_table(experiment) for experiment in experiments if experiment.gates]
    body.append(section("Gates", "".join(held)))
    apart = '<p class="soft">Only what was measured alike shares a plot.</p>' if several and fronts else ""
    body.append(section(FRONTS, apart + grid(fronts)))
    for name in (TRAINING, SENSITIVITY, CHANNELS):
        parts = [
            heading(experiment, several) + grid(figures[experiment.name][name])
            for experiment in experiments
            if figures[experiment.name][name]
        ]
        body.append(section(name, "".join(parts)))
    shown = [heading(experiment, several) + shots.answers(experiment, compared[experiment.name]) for experiment in experiments if compared]
    body.append(section("Answers", "".join(shown)))
    body.append(section("Provenance", "".join(heading(experiment, several) + provenance(experiment) for experiment in experiments)))
    return document(title, [part for part in body if part])


def document(title: str, body: Sequence[tuple[str, str]], *, policy: str = POLICY, scripts: str = "") -> str:
    """A page of named sections with links to them. policy: what it may do. scripts: HTML at its end."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{gallery.anchor(name)}">{escape(name)}</a></li>' for name, _ in body)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{outputs.GENERATOR}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{"".join(html for _, html in body)}</main>
<footer><p>Every figure was measured on the artefact that it names.</p></footer>
{scripts}</body>
</html>
"""


def section(name: str, html: str) -> tuple[str, str] | None:
    """A section under its heading, with its name; None for an empty one."""
    identity = gallery.anchor(name)
    return (name, f'<section aria-labelledby="{identity}"><h2 id="{identity}">{escape(name)}</h2>\n{html}</section>\n') if html else None


def heading(experiment: Experiment, several: bool) -> str:
    """The experiment's name, where there is more than one."""
    return f"<h3>{escape(experiment.name)}</h3>" if several else ""


def grid(group: Sequence[Plot]) -> str:
    """Plots side by side where there is room."""
    return f'<div class="plots">{"".join(figure(plot) for plot in group)}</div>' if group else ""


def figure(plot: Plot) -> str:
    """One plot with what it says in words."""
    drawing = inline(with_tips(themed(plots.svg(plot.figure)), plot.tips), f"plot-{plot.name}", plot.alt)
    below = f"<figcaption>{escape(plot.caption)}</figcaption>" if plot.caption else ""
    width = plot.figure.get_size_inches()[0] * 118  # CSS pixels that a figure may take: its text is then of the page's size
    return f'<figure style="max-width:{width:.0f}px">{drawing}{below}</figure>\n'


def with_tips(svg: str, tips: Sequence[str]) -> str:
    """A figure whose markers say what they are where a mouse points at them."""
    for place, tip in enumerate(tips):
        mark = f'<g id="{pareto.TIP}{place}">'
        svg = svg.replace(mark, f"{mark}<title>{escape(tip)}</title>", 1)
    return svg


def themed(svg: str) -> str:
    """A figure in the page's colours, light or dark."""
    return svg.replace(plots.INK, "currentColor").replace(plots.RULE, "var(--rule)")


def table(experiment: Experiment) -> str:
    """The ledger, every figure with its change against the first row; an artefact that has two names has one line."""
    rows, first, broken = distinct(experiment.rows), experiment.rows[0], failed(experiment)
    pick = recommended(experiment.rows, broken)
    columns = by_weight(rows)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("stage", *columns))
    cells = [[cell(column[place], column[0], place == 0) for column in columns.values()] for place in range(len(rows))]
    body = "".join(
        table_row(row, row is pick, remarks(row, experiment.rows, broken), found) for row, found in zip(rows, cells, strict=True)
    )
    note = (
        f"In small print the change against {first.stage}: of a score in points (pt) or its own unit, and in per cent. "
        f"{f'Highlighted: {pick.stage}, recommended.' if pick else 'Nothing is recommended.'}"
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table of {escape(experiment.name, quote=True)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<p class="soft notes">{lines([note, *caption(experiment.rows).splitlines()])}</p>'
    )


def by_weight(rows: Sequence[Row]) -> dict[str, list[list[Cell]]]:
    """The columns of the readable table with what matters the most first: the main metric, the fastest latency, and the size."""
    found = {heading: column for heading, column in readable(rows).items() if heading not in ("stage", "delta")}
    main = rows[0].metric.heading
    quickest = [[Cell("", median, text=f"{median:.1f}", note=where)] if where else [] for median, where in map(fastest, rows)]
    first = {main: found[main], **({"fastest ms": quickest} if any(quickest) else {}), "MB": found["MB"]}
    return {**first, **{heading: column for heading, column in found.items() if heading not in first}}


def remarks(row: Row, rows: Sequence[Row], broken: Collection[str]) -> str:
    """The other names of a row's artefact, and whether it fails a gate."""
    others = [other.stage for other in rows if other is not row and same_figures(row, other)]
    same = f"the same: {', '.join(others)}" if others else ""
    return "; ".join(part for part in (same, "fails a gate" if row.stage in broken else "") if part)


def table_row(row: Row, picked: bool, also: str, cells: Sequence[str]) -> str:
    """One artefact."""
    name = f"{escape(row.stage).replace('/', '/<wbr>').replace('_', '_<wbr>')}{small(also)}"
    return f'<tr{" class=pick" if picked else ""}><th scope="row">{name}</th>{"".join(cells)}</tr>'


def cell(found: Sequence[Cell], before: Sequence[Cell], is_first: bool) -> str:
    """What a row has in one column, each figure with what is said of it and its change against the least of the first row's."""
    if not found:
        return '<td><span class="soft" title="not measured">&ndash;</span></td>'
    was = None if is_first else min((cell.value for cell in before), default=None)
    figures = (f"{escape(cell.text)}{small(cell.note)}{''.join(map(small, moved(cell, was)))}" for cell in found)
    return f"<td>{'<br>'.join(figures)}</td>"


def moved(cell: Cell, was: float | None) -> list[str]:
    """The change of a figure: of a metric in points or its unit, of all in per cent; nothing where there is nothing to compare with."""
    if was is None:
        return []
    own = [points(cell.metric, cell.value - was, "pt")] if cell.metric else []
    return [*own, change(cell.value, was)]


def small(text: str) -> str:
    return f"<small>{escape(text)}</small>" if text else ""


def lines(texts: Sequence[str]) -> str:
    return "<br>".join(escape(text) for text in texts)
