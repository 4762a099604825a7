"""Figures: plain data in, a matplotlib `Figure` out. Nothing here keeps state, opens a window, or reads a file.

Colours are told apart by every kind of colour vision, and have a contrast of 3 to 1 to a white and to a black page; a marker or a dash
says the same again.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from compress.errors import CompressError
from compress.files import write_bytes
from compress.report.findings import best_epoch, damage, evaluated_epochs
from compress.report.wording import figure as figure_text
from compress.tasks.task import Metric, Task

BLUE, VERMILION, GREEN, PURPLE, OCHRE, GREY = "#2b83c6", "#d55e00", "#009e73", "#b565a7", "#b8860b", "#808080"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, OCHRE, GREY)
MARKERS = "os^DvPX*<>hp"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
ALL = slice(None)
WIDTH = 4.7  # inches: on a phone the text is still legible
INK, RULE = "#1d2127", "#c9ced7"
# Dates and random names out of the files: equal data give equal bytes.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.hinting": "none",  # so that text is as wide in an SVG as where it was measured
    "svg.hashsalt": "compress",
    "svg.fonttype": "none",
}


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches, and its (rows, columns) axes."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.05))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def laid_out(figure: Figure) -> Figure:
    """The figure with everything in its final place, so that it is arranged once and not at each writing."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def plain(text: object) -> str:
    """Text as it is: matplotlib would read what stands between two dollars as a formula."""
    return str(text).replace("$", r"\$")


def percent(value: float, _position: int = 0) -> str:
    return f"{100 * value:.4g}"


def values_of(axis: Axis, metric: Metric) -> None:
    """An axis of a metric's values, in its unit."""
    axis.set_major_formatter(FuncFormatter(percent if metric.percent else number))


def number(value: float, _position: int = 0) -> str:
    return f"{value:g}"


LOSS_TOTAL, NOT_PARTS = "loss", {"epoch", "lr", "loss"}


@rc_context(STYLE)
def training_curves(name: str, entries: Sequence[Mapping[str, float]], task: Task) -> Figure:
    """Loss and its parts above, the task's metrics on validation below, an epoch a step; the best and the last epoch are marked.

    entries: one mapping an epoch with `epoch`, `lr`, `loss`, the loss's parts, and `val_<metric>` where it was evaluated.
    """
    figure, axes = new_figure(WIDTH, 4.8, rows=2, sharex=True, height_ratios=(1, 1.15))
    figure.suptitle(plain(name), fontsize=10)
    loss, score = axes[:, 0]
    parts = [key for key in dict.fromkeys(key for entry in entries for key in entry) if key not in NOT_PARTS and not key.startswith("val_")]
    for index, key in enumerate([LOSS_TOTAL, *parts]):
        curve(loss, entries, key, index, "whole loss" if key == LOSS_TOTAL else key)
    loss.set(ylabel="loss")
    loss.set_ylim(bottom=0)
    loss.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    validation(score, entries, task)
    score.set(xlabel="epoch")
    score.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    handles, labels = score.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return laid_out(figure)


def validation(ax: Axes, entries: Sequence[Mapping[str, float]], task: Task) -> None:
    """The metrics that have the unit of the main one, and the best and the last epoch by that."""
    main, key = task.metric, f"val_{task.main}"
    shown = [main, *(metric for metric in task.metrics if metric != main and metric.percent == main.percent)]
    for index, metric in enumerate(shown):
        curve(ax, entries, f"val_{metric.name}", index, metric.label)
    best, last = best_epoch(entries, task), [None, *evaluated_epochs(entries, task)][-1]
    if best and last:
        mark(ax, best, key, "*", VERMILION, 13, f"best: epoch {best['epoch']}, {figure_text(main, best[key])}")
        mark(ax, last, key, "s", INK, 9, f"last: epoch {last['epoch']}, {figure_text(main, last[key])}")
    ax.set(ylabel=f"{plain(main.heading)} on validation")
    values_of(ax.yaxis, main)
    ax.margins(y=0.12)


def curve(ax: Axes, entries: Sequence[Mapping[str, float]], key: str, index: int, label: str) -> None:
    """One quantity over the epochs that have it; dots where there are few."""
    known = [(entry["epoch"], entry[key]) for entry in entries if entry.get(key) is not None]
    if not known:
        return
    dots = MARKERS[index % len(MARKERS)] if len(known) <= 20 else ""
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    ax.plot(*zip(*known, strict=True), color=colour, ls=dash, marker=dots, ms=4, lw=1.6, label=plain(label))


def mark(ax: Axes, entry: Mapping[str, float], key: str, marker: str, colour: str, size: float, label: str) -> None:
    """One epoch, ringed."""
    ax.plot(entry["epoch"], entry[key], marker, mfc="none", mec=colour, mew=1.5, ms=size, label=plain(label), ls="none")


@rc_context(STYLE)
def channel_bars(name: str, channels: Mapping[str, tuple[int, int]], most: float = 0.0) -> Figure:
    """Output channels of every layer before (light) and after pruning (dark), in the network's order from the top.

    channels: layer -> (before, after). most: the axis goes as far as for so many channels; for the layers' own unless given.
    """
    figure, axes = new_figure(WIDTH, 1.2 + 0.2 * len(channels))
    ax = axes[0, 0]
    places = np.arange(len(channels))
    before, after = (np.array([pair[i] for pair in channels.values()], float) for i in (0, 1))
    ax.barh(places, before, 0.78, color=RULE, edgecolor=GREY, lw=0.5, label="before")
    ax.barh(places, after, 0.78, color=BLUE, label="after")
    for place, (old, new) in enumerate(channels.values()):
        text = f"{new} of {old}" if new != old else f"{old}, untouched"
        ax.annotate(text, (old, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    layer_axis(ax, list(channels))
    ax.set(xlabel="output channels")
    figure.suptitle(plain(f"{name}: {int(after.sum())} of {int(before.sum())} channels"), fontsize=10)
    ax.set_xlim(0, 1.3 * (most or max(before, default=1)))
    figure.legend(loc="outside lower center", ncols=2)
    return laid_out(figure)


def layer_axis(ax: Axes, layers: Sequence[str]) -> None:
    """The names of layers down the y axis, one a bar or a row, each around a whole number."""
    ax.set_yticks(np.arange(len(layers)), [plain(short(layer)) for layer in layers], fontsize=8)
    ax.set_ylim(len(layers) - 0.5, -0.5)
    ax.grid(False, axis="y")
    ax.tick_params("y", length=0)


def short(layer: str) -> str:
    """A layer's name, its middle left out where it is very long."""
    return layer if len(layer) <= 40 else layer[:16] + "…" + layer[-23:]


@rc_context(STYLE)
def sensitivity_heatmap(data: Mapping[str, Any]) -> Figure:
    """What pruning one group of layers alone costs: groups down, ratios across, the figure in each cell.

    data: a `sensitivity.json` of kind `prune`: `task`, `baseline`, `groups`, `ratios` and `points`.
    Raises CompressError for one without points.
    """
    groups, ratios = axes_of(data)
    costs, what = damage(data)
    table = np.full((len(groups), len(ratios)), np.nan)
    for point, cost in zip(data["points"], costs, strict=True):
        table[groups.index(point["group"]), ratios.index(point["ratio"])] = cost
    figure, axes = new_figure(WIDTH, 1.6 + 0.21 * len(groups))
    ax = axes[0, 0]
    ax.grid(False)
    low, high = min(0.0, float(np.nanmin(table))), max(float(np.nanmax(table)), 1e-9)
    edges = [np.arange(size + 1) - 0.5 for size in table.shape[::-1]]
    ax.pcolormesh(*edges, np.ma.masked_invalid(table), cmap="cividis", vmin=low, vmax=high, edgecolors="white", linewidth=0.5)
    for (down, across), cost in np.ndenumerate(table):
        if np.isfinite(cost):
            colour = "white" if (cost - low) < 0.55 * (high - low) else "black"
            ax.text(
                across,
                down,
                f"{cost:.2g}" if abs(cost) < 10 else f"{cost:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color=colour,
            )
    layer_axis(ax, groups)
    ax.set_xticks(np.arange(len(ratios)), [percent(ratio) for ratio in ratios])
    ax.set(xlabel="channels of the group removed (%)")
    figure.suptitle(plain(f"{what}, one group pruned at a time"), fontsize=10)
    ax.spines[:].set_visible(False)
    return laid_out(figure)


def axes_of(data: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """Names of the groups, in their order, and the ratios, of those that have a point."""
    measured = {point["group"] for point in data["points"]}
    if not measured:
        raise CompressError("This sensitivity has no points yet, so there is nothing to draw.")
    named = [group["name"] for group in data.get("groups", ()) if group["name"] in measured]
    groups = [*named, *sorted(measured - set(named))]
    return groups, sorted({point["ratio"] for point in data["points"]})


COLUMNS = 3


def upper_fence(values: Sequence[float]) -> float:
    """The upper quartile and three times the distance between the quartiles (Tukey 1977), beyond which a value is far out.

    No less than zero and than the greatest value that is not far out; the greatest of all where none is.
    """
    low, high = np.quantile(values, (0.25, 0.75))
    fence = high + 3 * (high - low)
    return max(0.0, max(value for value in values if value <= fence))


@rc_context(STYLE)
def sensitivity_curves(data: Mapping[str, Any]) -> Figure:
    """The same as :func:`sensitivity_heatmap` as one small plot a group, all on the same axes, the unpruned network at 0 %.

    Points far above most lie on the upper edge, as triangles, with their figure beside them.
    """
    groups, ratios = axes_of(data)
    costs, what = damage(data)
    top = upper_fence(costs)
    clipped = max(costs) > top
    rows = math.ceil(len(groups) / COLUMNS)
    figure, axes = new_figure(WIDTH, 0.9 + 1.2 * rows, rows, COLUMNS, sharex=True, sharey=True)
    for ax, group in zip(axes.flat, groups, strict=False):
        line = sorted((point["ratio"], cost) for point, cost in zip(data["points"], costs, strict=True) if point["group"] == group)
        ax.plot(*zip((0.0, 0.0), *line, strict=True), color=BLUE, marker="o", ms=3, lw=1.4)
        for ratio, cost in line:
            if cost > top:
                ax.plot(ratio, top, "^", color=VERMILION, ms=5, clip_on=False)
                ax.annotate(f"{cost:.2g}", (ratio, top), (-4, -2), textcoords="offset points", ha="right", va="top", fontsize=7)
        ax.axhline(0, color=GREY, lw=0.8, ls="--")
        ax.set_title(plain("\n".join(textwrap.wrap(short(group).replace(".", ". "), 24)).replace(". ", ".")), fontsize=7.5)
        ax.xaxis.set_major_formatter(FuncFormatter(percent))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.tick_params(labelsize=7.5)
    for ax in list(axes.flat)[len(groups) :]:
        ax.set_visible(False)
    axes[0, 0].set_xlim(0, max(ratios) * 1.05)
    if clipped:
        axes[0, 0].set_ylim(min(0.0, *costs) - 0.05 * top, top)
    figure.supxlabel("channels of the group removed (%)", fontsize=9, color=INK)
    note = f"{what}; triangles: above {top:.2g}, the figure beside" if clipped else what
    figure.supylabel(plain(note), fontsize=9, color=INK)
    return laid_out(figure)


@rc_context(STYLE)
def quantization_bars(data: Mapping[str, Any], part: slice = ALL) -> Figure:
    """What quantizing one layer alone costs, the worst on top.

    data: a `sensitivity_quantize.json`: `task`, `baseline` and `points` with `layer`, `loss` and `scores`. part: which of the layers, in
    that order, are drawn, on the axis of all.
    Raises CompressError for no points.
    """
    if not data["points"]:
        raise CompressError("This sensitivity has no points yet, so there is nothing to draw.")
    costs, what = damage(data)
    order = sorted(range(len(costs)), key=lambda index: -costs[index])[part]
    figure, axes = new_figure(WIDTH, 1.2 + 0.2 * len(order))
    ax = axes[0, 0]
    values = [costs[index] for index in order]
    ax.barh(np.arange(len(values)), values, 0.78, color=[VERMILION if value > 0 else BLUE for value in values])
    for place, value in enumerate(values):
        side, offset = ("left", 3) if value >= 0 else ("right", -3)
        ax.annotate(f"{value:.2g}", (value, place), (offset, 0), textcoords="offset points", ha=side, va="center", fontsize=7)
    layer_axis(ax, [data["points"][index]["layer"] for index in order])
    ax.axvline(0, color=INK, lw=0.8)
    low, high = min(0.0, *costs), max(0.0, *costs)
    room = 0.25 * (high - low or 1.0)  # for the figures at the ends of the bars
    ax.set_xlim(low - room * (low < 0), high + room)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.xaxis.set_major_formatter(FuncFormatter(number))
    ax.set(xlabel=plain(what))
    figure.suptitle(plain(f"{what}, one layer quantized at a time"), fontsize=10)
    return laid_out(figure)


@rc_context(STYLE)
def save(figure: Figure, path: Path, weights: str = "") -> list[Path]:
    """Write `<path>.png` and `<path>.svg`, equal bytes for equal figures, each whole or not at all, and return both paths.

    weights: digest of the weights that the figure is about, which both files then say in their `Description`.
    """
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    drawn = [io.BytesIO(), io.BytesIO()]
    about = {"Description": f"weights {weights}"} if weights else {}
    figure.savefig(drawn[0], format="png", dpi=160, metadata={"Software": None, **about})
    figure.savefig(drawn[1], format="svg", metadata={"Date": None, **about})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, content in zip(files, drawn, strict=True):
            write_bytes(file, content.getvalue())
    except OSError as error:
        raise CompressError(f"The plot {path} cannot be written ({error}); name another folder.") from None
    return files


@rc_context(STYLE)
def svg(figure: Figure) -> str:
    """The figure as an SVG document on a transparent ground, without a date."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()
