"""The figures of scores against costs: what every artefact reaches, and the front of those that nothing beats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from compress.report.findings import front, hopeless
from compress.report.plots import COLOURS, GREY, MARKERS, RULE, STYLE, WIDTH, laid_out, new_figure, number, plain, short, values_of
from compress.tasks.task import Metric

TIP = "tip-"  # of the ids of markers, before their place


@dataclass(frozen=True)
class Point:
    """One artefact on a plot of a metric against a cost. series: what its marker stands for. group: what its colour stands for."""

    label: str
    cost: float
    score: float
    series: str
    group: str


@rc_context(STYLE)
def pareto(points: Sequence[Point], cost: str, metric: Metric, everywhere: Sequence[Point] = ()) -> Figure:
    """A metric against a cost on a logarithmic axis, with the Pareto front over all points.

    cost: what the cost is, and its unit. everywhere: the points of all plots whose markers and colours should agree.
    Points that are hopeless are left out, which the axis would otherwise be spent on. An artefact that has several points, one a runtime,
    is a thin line with one name. The group of each point, by its place in `worth_drawing(points)`, is called `tip-<place>`.
    """
    shown = worth_drawing(points, metric)
    figure, axes = new_figure(WIDTH, 4.0)
    ax = axes[0, 0]
    best = front_of(shown, metric)
    ax.plot([shown[i].cost for i in best], [shown[i].score for i in best], color=GREY, lw=1, ls="--", drawstyle="steps-post")
    series, groups = (list(dict.fromkeys(getattr(point, name) for point in everywhere or points)) for name in ("series", "group"))
    for places in artefacts_of(shown):
        ax.plot([shown[i].cost for i in places], [shown[i].score for i in places], color=RULE, lw=1.2, zorder=1.5)
    for place, point in enumerate(shown):
        look = {
            "marker": MARKERS[series.index(point.series) % len(MARKERS)],
            "color": COLOURS[groups.index(point.group) % len(COLOURS)],
        }
        ax.plot(point.cost, point.score, ls="none", ms=7, mec="white", mew=0.6, gid=f"{TIP}{place}", **look)
    keys(figure, series, groups, shown)
    ax.set(xlabel=f"{cost}, logarithmic", ylabel=plain(metric.heading))
    logarithmic(ax, [point.cost for point in shown])
    values_of(ax.yaxis, metric)
    ax.margins(x=0.12, y=0.14)
    laid_out(figure)
    label_points(figure, ax, shown, best)
    return figure


def keys(figure: Figure, series: Sequence[str], groups: Sequence[str], shown: Sequence[Point]) -> None:
    """What the markers, and, where they say something else, the colours of the points `shown` stand for."""
    same = list(series) == list(groups)
    colours = [COLOURS[index % len(COLOURS)] if same else GREY for index in range(len(series))]
    handles: list[Artist] = [
        Line2D([], [], ls="none", ms=7, marker=MARKERS[index % len(MARKERS)], color=colour, label=plain(name))
        for index, (name, colour) in enumerate(zip(series, colours, strict=True))
        if any(point.series == name for point in shown)
    ]
    if not same:
        handles += [
            Patch(color=COLOURS[index % len(COLOURS)], label=plain(short(name)))
            for index, name in enumerate(groups)
            if any(point.group == name for point in shown)
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


def worth_drawing(points: Sequence[Point], metric: Metric) -> list[Point]:
    """The points that are not hopeless beside the best."""
    best = max((point.score for point in points), key=lambda score: metric.gain(0.0, score), default=0.0)
    return [point for point in points if not hopeless(metric, point.score, best)]


def front_of(points: Sequence[Point], metric: Metric) -> list[int]:
    """Indices of the Pareto front, by rising cost."""
    return front([(point.cost, metric.gain(0.0, point.score)) for point in points])


def logarithmic(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis with plain numbers, enough of them on a short one."""
    ax.set_xscale("log")
    decades = math.log10(max(values) / min(values)) if values and min(values) > 0 else 1.0
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(number))
    ax.xaxis.set_minor_formatter(NullFormatter())


def artefacts_of(points: Sequence[Point]) -> list[list[int]]:
    """Places of the points of each artefact, by rising cost."""
    found: dict[tuple[str, float], list[int]] = {}
    for place in sorted(range(len(points)), key=lambda place: points[place].cost):
        found.setdefault((points[place].label, points[place].score), []).append(place)
    return list(found.values())


Box = tuple[float, float, float, float]
APART = 3  # points between two names in one line
# Where a name may stand, in points from its marker's middle to the nearest point of the name: close by, then further off with a line.
CLOSE = [(7, 6), (7, -6), (-7, 6), (-7, -6), (0, 9), (0, -9)]
FAR = [
    (far * math.cos(math.radians(angle)), far * math.sin(math.radians(angle)))
    for far in (18, 26, 36, 48, 62, 78)
    for angle in range(12, 372, 12)
]


def label_points(figure: Figure, ax: Axes, points: Sequence[Point], best: Sequence[int]) -> None:
    """Name every artefact once, those of the front `best` in bold and before the others, so that no name could be taken for another's.

    A name covers no other name or marker; it stands nearest to its own marker, or a line leads from it to that.
    """
    renderer, dot = FigureCanvasAgg(figure).get_renderer(), figure.dpi / 72
    markers = [tuple(ax.transData.transform((point.cost, point.score))) for point in points]
    covered: list[Box] = [around(marker, 4 * dot) for marker in markers]
    corners = [markers[place] for place in best]
    steps = [corner for (x, y), after in itertools.pairwise(corners) for corner in ((x, y), (after[0], y))] + corners[-1:]
    lines = [around(spot, dot) for start, end in itertools.pairwise(steps) for spot in along(start, end)]
    leaders: list[Box] = []
    window = ax.get_window_extent(renderer)
    frame = (window.x0, window.y0, window.x1 + 4, window.y1)
    named = {next((place for place in places if place in best), places[0]): places for places in artefacts_of(points)}
    for place in sorted(named, key=lambda place: (place not in best, points[place].cost)):
        point, weight = points[place], "bold" if place in best else "normal"
        text = ax.annotate(plain(point.label), (point.cost, point.score), (0, 0), textcoords="offset points", fontsize=8, fontweight=weight)
        extent = text.get_window_extent(renderer)
        size, mine = (extent.width, extent.height), markers[place]
        text.remove()
        close, far = ([box_beside(mine, size, (dx * dot, dy * dot)) for dx, dy in offsets] for offsets in (CLOSE, FAR))
        others = [box for index, box in enumerate(covered) if index not in named[place]]
        free = [box for box in close if is_free(box, frame, [*covered, *lines, *leaders]) and nearest(box, markers) in named[place]]
        led = (
            []
            if free
            else [box for box in far if is_free(box, frame, [*covered, *lines, *leaders]) and not crosses(mine, box, [*others, *leaders])]
        )
        if not free and not led:
            continue  # it is told where a mouse points at its marker, and in the table
        box = (free or led)[0]
        covered.append((box[0] - APART * dot, box[1], box[2] + APART * dot, box[3]))
        leaders += [] if free else [around(spot, dot) for spot in along(mine, closest(box, mine))]
        offset = ((box[0] - mine[0]) / dot, (box[1] - mine[1]) / dot)
        leader = {"arrowstyle": "-", "color": GREY, "lw": 0.7, "shrinkA": 0, "shrinkB": 3, "relpos": relative(box, mine)}
        ax.annotate(
            plain(point.label), (point.cost, point.score), offset, textcoords="offset points", fontsize=8, fontweight=weight, va="bottom",
            arrowprops=None if free else leader,
        )  # fmt: skip


def around(spot: tuple[float, float], radius: float) -> Box:
    """The box around a spot."""
    return spot[0] - radius, spot[1] - radius, spot[0] + radius, spot[1] + radius


def along(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """Spots on a straight line, two pixels apart at most."""
    shares = np.linspace(0, 1, 2 + int(math.dist(start, end) / 2))
    return [(start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])) for share in shares]


def box_beside(marker: tuple[float, float], size: tuple[float, float], offset: tuple[float, float]) -> Box:
    """The box of a text of that width and height whose nearest side or corner is `offset` from a marker."""
    (x, y), (width, height), (dx, dy) = marker, size, offset
    left = x + dx - (width if dx < -1 else width / 2 if abs(dx) <= 1 else 0)
    bottom = y + dy - (height if dy < -1 else height / 2 if abs(dy) <= 1 else 0)
    return left, bottom, left + width, bottom + height


def is_free(box: Box, frame: Box, taken: Sequence[Box]) -> bool:
    """Whether a box lies inside the frame and covers nothing that is taken."""
    inside = box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]
    return inside and not any(overlap(box, other) for other in taken)


def nearest(box: Box, markers: Sequence[tuple[float, float]]) -> int:
    """Place of the marker that is nearest to a box."""
    return min(range(len(markers)), key=lambda place: math.dist(markers[place], closest(box, markers[place])))


def closest(box: Box, marker: tuple[float, float]) -> tuple[float, float]:
    """The point of a box that is nearest to a marker."""
    return min(max(marker[0], box[0]), box[2]), min(max(marker[1], box[1]), box[3])


def relative(box: Box, marker: tuple[float, float]) -> tuple[float, float]:
    """The same, as shares of the box's width and height."""
    x, y = closest(box, marker)
    return (x - box[0]) / (box[2] - box[0]), (y - box[1]) / (box[3] - box[1])


def crosses(marker: tuple[float, float], box: Box, taken: Sequence[Box]) -> bool:
    """Whether the line from a marker to a box runs over what is taken."""
    return any(overlap(around(spot, 0), other) for spot in along(marker, closest(box, marker)) for other in taken)


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes, as left, bottom, right and top, share an area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
