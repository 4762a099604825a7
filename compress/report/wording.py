"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Mapping

from compress.tasks.task import Metric, Task

MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"  # between a figure and its unit


def megabytes(size: int) -> str:
    """Bytes as MB: 2411744 -> `2.41 MB`."""
    return f"{size / 1e6:.{2 if size >= 1e6 else 3}f}{SPACE}MB"


def milliseconds(median: float) -> str:
    """A median in ms: `12.1 ms`."""
    return f"{median:.1f}{SPACE}ms"


def billions(count: int) -> str:
    """Multiply-accumulates: `0.612 G`."""
    return f"{count / 1e9:.3f}{SPACE}G"


def figure(metric: Metric, value: float) -> str:
    """A metric's value with its unit: `92.85 %`."""
    return metric.shown(value) + (f"{SPACE}%" if metric.percent else "")


def named(metric: Metric, value: float) -> str:
    """The same with its name: `P 92.85 %`."""
    return f"{metric.label} {figure(metric, value)}"


def scores_text(task: Task, scores: Mapping[str, float]) -> str:
    """All scores, those of parts of the data among them: `P 92.85 %, R 80.12 %`."""
    return ", ".join(f"{label_of(task, name)}{SPACE}{value_of(task, name, value)}" for name, value in scores.items())


def label_of(task: Task, name: str) -> str:
    """The name of a score as people read it: that of its metric, and of the part of the data where it is of one."""
    metric = metric_of(task, name)
    return metric.label + name.removeprefix(metric.name) if metric else name


def value_of(task: Task, name: str, value: float) -> str:
    """A score with its unit, by its metric."""
    metric = metric_of(task, name)
    return figure(metric, value) if metric else f"{value:.4g}"


def metric_of(task: Task, name: str) -> Metric | None:
    """The metric that a score is a value of; None for a score of another kind."""
    return next((metric for metric in task.metrics if f"{name} ".startswith(f"{metric.name} ")), None)


def printable(text: str) -> str:
    """Text for a terminal, where people search for figures: with plain spaces and minus signs."""
    return text.replace(SPACE, " ").replace(MINUS, "-")


def change(new: float, old: float) -> str:
    """By how much of `old`: `-81.8 %` with a longer minus; nothing where there is nothing to compare with."""
    return signed(f"{100 * (new - old) / old:+.1f}", f"{SPACE}%") if old else ""


def points(metric: Metric, difference: float, unit: str = "points") -> str:
    """A difference of two values of a metric: `-3.39 points` with a longer minus, where they are percentages."""
    return signed(metric.moved(difference), f"{SPACE}{unit}" if metric.percent else "")


def signed(text: str, unit: str) -> str:
    """`+1.2 %`, with a minus as long as the plus."""
    return f"{text}{unit}".replace("-", MINUS)
