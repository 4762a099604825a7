"""Which figures an experiment calls for, and what each of them says in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.ledger import Row
from compress.report import plots
from compress.report.collect import Experiment
from compress.report.findings import best_epoch, damage, distinct, evaluated_epochs, timings
from compress.report.wording import figure, named
from compress.tasks import TASKS
from compress.tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A figure. name: of its files. alt: what it shows, for those who do not see it. caption: what to know when reading it.

    weights: digest of the weights that it is about, where they are those of one network and known.
    """

    name: str
    figure: Figure
    alt: str
    caption: str = ""
    weights: str = ""


def file_name(*parts: str) -> str:
    """Parts of a name as one that any file system takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", "_".join(parts)).strip("-.")


def front_plots(experiments: Sequence[Experiment]) -> list[Plot]:
    """The main metric of each task against size, and against latency."""
    rows = [(experiment, row) for experiment in experiments for row in distinct(experiment.rows)]
    tasks = dict.fromkeys(row.task for _, row in rows)
    several = len(experiments) > 1
    return [plot for task in tasks for plot in task_fronts(TASKS[task], [pair for pair in rows if pair[1].task == task], several)]


def task_fronts(task: Task, rows: Sequence[tuple[Experiment, Row]], several: bool) -> list[Plot]:
    """Both plots of one task. several: whether colours tell experiments apart."""

    def point(experiment: Experiment, row: Row, cost: float, series: str) -> plots.Point:
        return plots.Point(row.stage, cost, row.score, series, experiment.name if several else series)

    sizes = [point(experiment, row, row.bytes / 1e6, row.runtime) for experiment, row in rows if row.bytes > 0]
    times = [point(experiment, row, median, name) for experiment, row in rows for name, median in timings(row).items() if median > 0]
    settings = sorted({latency_settings(row) for _, row in rows if row.latency_ms})
    told = "Latency of " + "; ".join(settings) + ". Fake-quantized networks are left out."
    wanted = [("size", sizes, "size of the weights on disk (MB)", ""), ("latency", times, "latency, median (ms)", told)]
    everywhere = [*sizes, *times]
    return [
        front_plot(f"{task.name}_{task.main}_{name}", task, points, cost, everywhere, caption)
        for name, points, cost, caption in wanted
        if any(found.score for found in points)
    ]


def latency_settings(row: Row) -> str:
    """What a row was timed on."""
    values = next(iter(row.latency_ms.values()))
    return f"{'x'.join(map(str, values['input']))} input, {values['threads']} thread{'s' * (values['threads'] != 1)}"


def front_plot(name: str, task: Task, points: list[plots.Point], cost: str, everywhere: list[plots.Point], caption: str) -> Plot:
    """One plot of the main metric against a cost."""
    metric = task.metric
    shown = plots.worth_drawing(points, metric)
    best = [shown[index] for index in plots.front_of(shown, metric)]
    listed = "; ".join(f"{point_name(point)} {point.cost:.3g}, {named(metric, point.score)}" for point in best)
    low = dict.fromkeys(point.label for point in points if point not in shown)
    left_out = f" Less than half as good as the best, not drawn: {', '.join(low)}." if low else ""
    alt = f"{metric.label} against {cost}. On the Pareto front, from the least cost on: {listed}."
    drawing = plots.pareto(points, cost, metric, everywhere)
    return Plot(name, drawing, alt, f"Dashed and bold: the Pareto front. {caption}{left_out}".strip())


def point_name(point: plots.Point) -> str:
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
    """Channels of every layer before and after each pruning."""
    return [
        Plot(
            file_name(experiment.name, "channels", stage.name),
            plots.channel_bars(stage.name, stage.channels),
            f"Output channels of {len(stage.channels)} layers: {sum(old for old, _ in stage.channels.values())} before, "
            f"{sum(new for _, new in stage.channels.values())} after {stage.name}.",
            weights=stage.weights,
        )
        for stage in experiment.stages
        if stage.channels
    ]


def sensitivity_plots(experiment: Experiment) -> list[Plot]:
    """Every sensitivity that lies in the experiment, as its kind is drawn."""
    found = []
    for path, data in experiment.sensitivity.items():
        if not data["points"] or not data["baseline"]:
            continue  # cut off before there was anything to draw
        name = file_name(experiment.name, path.removesuffix(".json"))
        caption, weights = sensitivity_caption(data, path), data.get("weights", "")
        if data["kind"] == "quantize":
            found.append(Plot(name, plots.quantization_bars(data), worst(data, "layer"), caption, weights))
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
