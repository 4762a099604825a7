"""One HTML page about experiments: it holds all that it shows, runs no script and asks no network for anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from compress.errors import CompressError
from compress.files import write_text
from compress.ledger import Row, caption
from compress.report import gallery, plots
from compress.report.collect import Experiment, collect
from compress.report.compare import compare
from compress.report.findings import distinct, recommended, runtimes_of, same_figures, timing_in
from compress.report.gallery import Plot
from compress.report.sections import detections, headline, inline, provenance, summary
from compress.report.wording import SPACE, change, signed

# The page may use its own styles and embedded pictures, and nothing else: no script, no request.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
FRONTS, TRAINING, SENSITIVITY, CHANNELS = "Hmean against size and latency", "Training", "Sensitivity", "Channels"
Figures = Mapping[str, Sequence[Plot]]


def write_report(folders: Sequence[Path], out: Path, *, images: int = 4, plot_folder: Path | None = None) -> list[Path]:
    """Write the report on the experiments in `folders` to `out`, and its plots as PNG and SVG into `plot_folder`; returns the files.

    images: validation pictures to show every artefact's detections on; with 0 no network is run.
    Raises CompressError for a folder that is no experiment and a file that cannot be written.
    """
    experiments = collect(folders)
    fronts = gallery.front_plots(experiments)
    figures = {experiment.name: figures_of(experiment) for experiment in experiments}
    compared = {experiment.name: compare(experiment, images) for experiment in experiments if images}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page(experiments, fronts, figures, compared))
    except OSError as error:
        raise CompressError(f"The report {out} cannot be written ({error}); name another file with --out.") from None
    if plot_folder is None:
        return [out]
    drawn = [*fronts, *(plot for groups in figures.values() for group in groups.values() for plot in group)]
    return [out, *(file for plot in drawn for file in plots.save(plot.figure, plot_folder / plot.name))]


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
    body.append(section(FRONTS, grid(fronts)))
    for name in (TRAINING, SENSITIVITY, CHANNELS):
        parts = [
            heading(experiment, several) + grid(figures[experiment.name][name])
            for experiment in experiments
            if figures[experiment.name][name]
        ]
        body.append(section(name, "".join(parts)))
    shown = [heading(experiment, several) + detections(experiment, compared[experiment.name]) for experiment in experiments if compared]
    body.append(section("Detections", "".join(shown)))
    body.append(section("Provenance", "".join(heading(experiment, several) + provenance(experiment) for experiment in experiments)))
    return document(title, [part for part in body if part])


def document(title: str, body: Sequence[tuple[str, str]]) -> str:
    """A page of named sections with links to them."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{gallery.file_name(name)}">{escape(name)}</a></li>' for name, _ in body)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
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
</body>
</html>
"""


def section(name: str, html: str) -> tuple[str, str] | None:
    """A section under its heading, with its name; None for an empty one."""
    identity = gallery.file_name(name)
    return (name, f'<section aria-labelledby="{identity}"><h2 id="{identity}">{escape(name)}</h2>\n{html}</section>\n') if html else None


def heading(experiment: Experiment, several: bool) -> str:
    """The experiment's name, where there is more than one."""
    return f"<h3>{escape(experiment.name)}</h3>" if several else ""


def grid(group: Sequence[Plot]) -> str:
    """Plots side by side where there is room."""
    return f'<div class="plots">{"".join(figure(plot) for plot in group)}</div>' if group else ""


def figure(plot: Plot) -> str:
    """One plot with what it says in words."""
    drawing = inline(themed(plots.svg(plot.figure)), f"plot-{plot.name}", plot.alt)
    below = f"<figcaption>{escape(plot.caption)}</figcaption>" if plot.caption else ""
    width = plot.figure.get_size_inches()[0] * 118  # CSS pixels that a figure may take: its text is then of the page's size
    return f'<figure style="max-width:{width:.0f}px">{drawing}{below}</figure>\n'


def themed(svg: str) -> str:
    """A figure in the page's colours, light or dark."""
    return svg.replace(plots.INK, "currentColor").replace(plots.RULE, "var(--rule)")


def table(experiment: Experiment) -> str:
    """The ledger, every figure with its change against the first row; an artefact that has two names has one line."""
    rows, first, pick = experiment.rows, experiment.rows[0], recommended(experiment.rows)
    runtimes = runtimes_of(rows)
    heads = [
        "stage",
        "parameters (M)",
        "MACs (G)",
        "size (MB)",
        "precision (%)",
        "recall (%)",
        "Hmean (%)",
        *(f"{name} (ms)" for name in runtimes),
    ]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(table_row(row, first, pick, runtimes, also_called(row, rows)) for row in distinct(rows))
    note = (
        f"In small print the change against {first.stage}: of precision, recall and Hmean in points (pt) and in per cent. "
        f"Highlighted: {pick.stage}, recommended."
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table of {escape(experiment.name, quote=True)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<p class="soft">{lines([note, *caption(rows).splitlines()])}</p>'
    )


def also_called(row: Row, rows: Sequence[Row]) -> str:
    """The other names of a row's artefact."""
    others = [other.stage for other in rows if other is not row and same_figures(row, other)]
    return f"the same: {', '.join(others)}" if others else ""


def table_row(row: Row, first: Row, pick: Row, runtimes: Sequence[str], also: str) -> str:
    """One artefact."""
    cells = [
        cell(f"{row.params / 1e6:.3f}", compared_with(row, first, row.params, first.params)),
        cell(f"{row.macs / 1e9:.3f}", compared_with(row, first, row.macs, first.macs)),
        cell(f"{row.bytes / 1e6:.3f}", compared_with(row, first, row.bytes, first.bytes)),
        *(score_cell(row, first, name) for name in ("precision", "recall", "hmean")),
        *(latency_cell(row, first, runtime) for runtime in runtimes),
    ]
    name = f"{escape(row.stage)}{small(also)}"
    return f'<tr{" class=pick" if row is pick else ""}><th scope="row">{name}</th>{"".join(cells)}</tr>'


def compared_with(row: Row, first: Row, value: float, before: float | None) -> str:
    """The change against the first row, which has none itself."""
    return change(value, before) if row is not first and before else ""


def cell(text: str, *below: str) -> str:
    return f"<td>{escape(text)}{''.join(map(small, below))}</td>"


def small(text: str) -> str:
    return f"<small>{escape(text)}</small>" if text else ""


def score_cell(row: Row, first: Row, name: str) -> str:
    """A share in per cent; the change in points and in per cent of what it was."""
    value, before = getattr(row, name), getattr(first, name)
    moved = signed(100 * (value - before), f"{SPACE}pt", 2) if row is not first else ""
    return cell(f"{100 * value:.2f}", moved, compared_with(row, first, value, before))


def latency_cell(row: Row, first: Row, runtime: str) -> str:
    """Medians in one runtime, each with its precision and its change against the first row there."""
    before = timing_in(first, runtime)
    found = [(name.split(maxsplit=1)[1], values["median"]) for name, values in row.latency_ms.items() if name.split()[0] == runtime]
    if not found:
        return '<td><span class="soft" title="not timed">&ndash;</span></td>'
    texts = (f"{median:.1f}{small(precision)}{small(compared_with(row, first, median, before))}" for precision, median in found)
    return f"<td>{'<br>'.join(texts)}</td>"


def lines(texts: Sequence[str]) -> str:
    return "<br>".join(escape(text) for text in texts)
