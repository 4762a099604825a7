"""Which figures an experiment calls for, and what each of them says in words."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compress.ledger import Row, conditions, data_of
from compress.report import pareto, plots
from compress.report.collect import Experiment, StageFacts
from compress.report.findings import best_epoch, damage, distinct, evaluated_epochs, timings
from compress.report.wording import figure, named
from compress.tasks import TASKS
from compress.tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS = 26  # in one plot


@dataclass(frozen=True)
class Plot:
    """A figure. name: of its files. alt: what it shows, for those who do not see it. caption: what to know when reading it.

    weights: digest of the weights that it is about, where they are those of one network and known. tips: what markers say to a mouse, by
    their places.
    """

    name: str
    figure: Figure
    alt: str
    caption: str = ""
    weights: str = ""
    tips: Sequence[str] = ()


def file_name(experiment: str, *parts: str) -> str:
    """Parts of a name as one that any file system takes; experiments of other names have others, whatever cannot stand in it."""
    plain = anchor(experiment)
    own = plain if plain == experiment.replace("/", "-") else f"{plain}-{hashlib.sha256(experiment.encode()).hexdigest()[:6]}".lstrip("-")
    return "_".join([own, *map(anchor, parts)])


def anchor(name: str) -> str:
    """A name as a part of a page, or of a file's name: letters and digits of any script."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def front_plots(experiments: Sequence[Experiment]) -> list[Plot]:
    """The main metric of each task against size, and against latency; what is not comparable has plots of its own."""
    rows = [(experiment, row) for experiment in experiments for row in distinct(experiment.rows)]
    tasks = dict.fromkeys(row.task for _, row in rows)
    return [plot for task in tasks for plot in task_fronts(TASKS[task], [pair for pair in rows if pair[1].task == task])]


def task_fronts(task: Task, rows: Sequence[tuple[Experiment, Row]]) -> list[Plot]:
    """All plots of one task."""
    sizes, times = Groups({}), Groups({})
    for experiment, row in rows:
        measured, data = scored_on(experiment, row), data_of(row)
        if row.bytes > 0:
            sizes.setdefault((measured, data), []).append(
                (experiment, pareto.Point(row.stage, row.bytes / 1e6, row.score, row.runtime, row.runtime))
            )
        for name, median in timings(row).items():
            if median > 0:
                found = (experiment, pareto.Point(row.stage, median, row.score, name, name))
                times.setdefault((f"{measured}; {timed_on(row, name)}", data), []).append(found)
    wanted = [("size", sizes, "size of the weights on disk (MB)"), ("latency", times, "latency, median (ms)")]
    everyone = [pair for groups in (sizes, times) for found in groups.values() for pair in found]
    return [plot for name, groups, cost in wanted for plot in fronts_of(f"{task.name}_{task.main}_{name}", task, groups, cost, everyone)]


Measured = list[tuple[Experiment, pareto.Point]]
Groups = dict[tuple[str, str], Measured]  # by what was measured on, in words, and the fingerprint of its images


def scored_on(experiment: Experiment, row: Row) -> str:
    """What a score was measured on: only scores of equal ones share an axis."""
    return "; ".join(part for part in (conditions(row), experiment.data) if part)


def timed_on(row: Row, name: str) -> str:
    """What one latency of a row was taken on: only latencies of equal ones share an axis."""
    values = row.latency_ms[name]
    shape = f"{'x'.join(map(str, values['input']))} input" if values["input"] else "images, from pixels to answer"
    threads = f"{values['threads']} thread{'s' * (values['threads'] != 1)}"
    return ", ".join(part for part in (shape, threads, str(row.facts.get("cpu") or "")) if part)


def fronts_of(name: str, task: Task, groups: Groups, cost: str, everyone: Measured) -> list[Plot]:
    """A plot for each group of comparable points; a point that nothing compares with is named instead, where there are others.

    everyone: the points of all plots whose markers and colours should agree.
    """
    if not any(point.score for found in groups.values() for _, point in found):
        return []
    drawn = {alike: found for alike, found in groups.items() if len(found) > 1} or groups
    alone = [f"{experiment.name}: {point.label}" for alike, found in groups.items() if alike not in drawn for experiment, point in found]
    found = []
    for place, ((told, _), points) in enumerate(drawn.items(), 1):
        names = list(dict.fromkeys(experiment.name for experiment, _ in points))
        shown, known = (by_experiment(pairs, names) for pairs in (points, everyone))
        caption = f"Measured on {told}." if len(drawn) == 1 else f"{', '.join(names)}. Measured on {told}."
        caption += f" Measured on something else, and alone: {', '.join(dict.fromkeys(alone))}." if alone and place == 1 else ""
        found.append(front_plot(name if place == 1 else f"{name}_{place}", task, shown, cost, known, caption))
    return found


def by_experiment(pairs: Measured, names: Sequence[str]) -> list[pareto.Point]:
    """The points of these experiments, in colours that tell the experiments apart where there are several."""
    return [replace(point, group=its.name) if len(names) > 1 else point for its, point in pairs if its.name in names]


def front_plot(name: str, task: Task, points: list[pareto.Point], cost: str, everywhere: list[pareto.Point], caption: str) -> Plot:
    """One plot of the main metric against a cost."""
    metric = task.metric
    shown = pareto.worth_drawing(points, metric)
    best = [shown[index] for index in pareto.front_of(shown, metric)]
    told = [f"{point_name(point)} {point.cost:.3g}, {named(metric, point.score)}" for point in shown]
    listed = "; ".join(told[shown.index(point)] for point in best)
    low = dict.fromkeys(point.label for point in points if point not in shown)
    left_out = f" Less than half as good as the best, not drawn: {', '.join(low)}." if low else ""
    alt = f"{metric.label} against {cost}. On the Pareto front, from the least cost on: {listed}."
    how = "Dashed and bold: the Pareto front. A mouse that points at a marker shows what it is."
    return Plot(name, pareto.pareto(points, cost, metric, everywhere), alt, f"{how} {caption}{left_out}", tips=told)


def point_name(point: pareto.Point) -> str:
    """A point's name with all that tells it from others of that name."""
    return f"{point.group}: {point.label} ({point.series})" if point.group != point.series else f"{point.label} ({point.series})"


def training_plots(experiment: Experiment) -> list[Plot]:
    """Loss and validation figures of everything that was trained."""
    return [
        Plot(
            file_name(experiment.name, "training", name),
            plots.training_curves(name, entries, TASKS[stage.task]),
            training_text(name, entries, TASKS[stage.task]),
            weights=stage.weights,
        )
        for stage in experiment.stages
        for name, entries in stage.curves.items()
        if entries
    ]


def training_text(name: str, entries: Sequence[dict[str, Any]], task: Task) -> str:
    """A training in words."""
    text = f"Training of {name}: {len(entries)} epochs, loss from {entries[0]['loss']:.3g} to {entries[-1]['loss']:.3g}."
    best = best_epoch(entries, task)
    if best is None:
        return text
    last, key = evaluated_epochs(entries, task)[-1], f"val_{task.main}"
    return (
        f"{text} {task.metric.label} on validation: best {figure(task.metric, best[key])} in epoch {best['epoch']}, "
        f"last {figure(task.metric, last[key])} in epoch {last['epoch']}."
    )


def channel_plots(experiment: Experiment) -> list[Plot]:
    """Channels of every layer before and after each pruning; those of many layers in several plots."""
    return [plot for stage in experiment.stages if stage.channels for plot in channel_parts(experiment.name, stage)]


def channel_parts(experiment: str, stage: StageFacts) -> list[Plot]:
    """The plots of one pruning, on equal axes."""
    before, after = (sum(pair[i] for pair in stage.channels.values()) for i in (0, 1))
    alt = f"Output channels of {len(stage.channels)} layers: {before} before, {after} after {stage.name}."
    most, layers = max(old for old, _ in stage.channels.values()), list(stage.channels.items())
    return [
        Plot(
            file_name(experiment, "channels", stage.name, *([str(number)] if number > 1 else [])),
            plots.channel_bars(stage.name, dict(layers[part]), most),
            alt if number == 1 else f"Further layers of {stage.name}.",
            weights=stage.weights,
        )
        for number, part in enumerate(parts_of(len(layers)), 1)
    ]


def parts_of(count: int) -> list[slice]:
    """So many bars in parts of nearly equal length that fit on a screen."""
    number = max(1, math.ceil(count / MOST_BARS))
    edges = [round(count * part / number) for part in range(number + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


def sensitivity_plots(experiment: Experiment) -> list[Plot]:
    """Every sensitivity that lies in the experiment, as its kind is drawn."""
    found = []
    for path, data in experiment.sensitivity.items():
        if not data["points"] or not data["baseline"]:
            continue  # cut off before there was anything to draw
        name = file_name(experiment.name, path.removesuffix(".json"))
        caption, weights = sensitivity_caption(data, path), data.get("weights", "")
        if data["kind"] == "quantize":
            for number, part in enumerate(parts_of(len(data["points"])), 1):
                told = (worst(data, "layer"), caption) if number == 1 else ("The same of further layers.", "")
                found.append(Plot(name if number == 1 else f"{name}_{number}", plots.quantization_bars(data, part), *told, weights))
        else:
            found.append(Plot(f"{name}_heatmap", plots.sensitivity_heatmap(data), worst(data, "group"), caption, weights))
            found.append(Plot(f"{name}_curves", plots.sensitivity_curves(data), worst(data, "group"), weights=weights))
    return found


def sensitivity_caption(data: dict[str, Any], path: str) -> str:
    """What a sensitivity was measured on; after the fast pass alone that is the images of the loss."""
    images = data.get("images") or data.get("loss_images", "?")
    label = TASKS[data["task"]].metric.label
    facts = [
        f"{path}: {data.get('artefact', 'the network')} on {images} {data.get('split', '')} images",
        *(f"{name} {value}" for name, value in data.get("settings", {}).items()),
        f"criterion {data['criterion']}" if data.get("criterion") else "",
        reestimating(data),
        f"rank correlation of loss and {label} {data['rank_correlation']:.2f}" if data.get("rank_correlation") is not None else "",
    ]
    return ", ".join(fact for fact in facts if fact) + "."


def reestimating(data: dict[str, Any]) -> str:
    """What new statistics alone cost: points are told against the whole network with such."""
    task = TASKS[data["task"]]
    scores = [found for which in ("unpruned", "baseline") if (found := (data.get(which) or {}).get("scores"))]
    if len(scores) < 2:
        return ""
    before, after = (figure(task.metric, found[task.main]) for found in scores)
    return f"against the whole network with re-estimated statistics ({task.metric.label} {after}, {before} before)"


def worst(data: dict[str, Any], key: str) -> str:
    """A sensitivity in words: its three dearest points."""
    costs, what = damage(data)
    order = sorted(range(len(costs)), key=lambda index: -costs[index])[:3]
    points = [(data["points"][index], costs[index]) for index in order]
    told = "; ".join(f"{point[key]}{ratio_text(point)}: {cost:.3g}" for point, cost in points)
    return f"Sensitivity, {what}. The worst: {told}."


def ratio_text(point: dict[str, Any]) -> str:
    return f" with {100 * point['ratio']:g} % removed" if "ratio" in point else ""
