"""What a ledger's rows and a sensitivity's points say: what to ship, and how far timings can be trusted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from compress.ledger import Row
from compress.report.wording import SPACE
from compress.tasks import TASKS
from compress.tasks.task import Metric, Task

# Of files whose main metric is this near to the best one's, the fastest is recommended: a point of a percentage, else a share of the value.
TOLERANCE = 0.01


def timings(row: Row) -> dict[str, float]:
    """Runtime and precision -> median in ms. A fake-quantized network is left out: it imitates int8 and is not meant to be fast."""
    return {name: values["median"] for name, values in row.latency_ms.items() if "fake" not in name}


def fastest(row: Row) -> tuple[float, str]:
    """The least median in ms, and where it was reached; infinity where nothing was timed."""
    return min(((median, name) for name, median in timings(row).items()), default=(float("inf"), ""))


def goodness(row: Row) -> float:
    """The main metric's value, negative where less is better: the more the better."""
    return row.metric.gain(0.0, row.score)


def best(rows: Sequence[Row]) -> Row:
    """The row of the best main metric."""
    return max(rows, key=goodness)


def hopeless(metric: Metric, value: float, best_value: float) -> bool:
    """Whether a share is less than half as good as the best one, from the worst value on. Of what is no share nothing is hopeless."""

    def from_worst(share: float) -> float:
        return share if metric.higher_is_better else 1 - share

    return metric.percent and 2 * from_worst(value) < from_worst(best_value)


def shippable(rows: Sequence[Row]) -> list[Row]:
    """The exported files; where there are none, the checkpoints, but no teacher's. Those that are hopeless are of no use."""
    choice = [row for row in rows if row.kind in ("export", "assemble")] or [row for row in rows if row.kind != "teacher"] or list(rows)
    return [row for row in choice if not hopeless(row.metric, row.score, best(choice).score)]


def tolerance(row: Row) -> float:
    """How far from this, the best row, another may be and still be recommended, in the unit of the main metric."""
    return TOLERANCE if row.metric.percent else TOLERANCE * abs(row.score)


def tolerance_text(metric: Metric) -> str:
    """The same in words."""
    return f"{100 * TOLERANCE:g}{SPACE}{'point' if metric.percent else '%'}"


def recommended(rows: Sequence[Row], failed: Collection[str] = ()) -> Row | None:
    """Of the shippable rows near to the best one, by its main metric, the fastest, and of equally fast ones the smallest.

    failed: stages of rows that are not what the recipe expects, which are never recommended; None where that leaves nothing.
    """
    choice = [row for row in shippable(rows) if row.stage not in failed]
    if not choice:
        return None
    top = best(choice)
    near = [row for row in choice if goodness(row) >= goodness(top) - tolerance(top)]
    return min(near, key=lambda row: (fastest(row)[0], row.bytes))


def scatter(rows: Sequence[Row]) -> tuple[str, float, float] | None:
    """Runtime, least and greatest median in ms of one network timed more than once, where they are furthest apart.

    Rows of as many multiply-accumulates are one network; equal figures are one timing, copied.
    """
    same: dict[tuple[int | None, str], set[float]] = {}
    for row in rows:
        for name, median in timings(row).items() if row.macs is not None else ():
            same.setdefault((row.macs, name), set()).add(median)
    spread = [(max(found) / min(found), name, min(found), max(found)) for (_, name), found in same.items() if len(found) > 1]
    return max(spread)[1:] if spread else None


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the Pareto front of (cost, goodness) points, by rising cost: no other point costs no more and is no worse."""
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    kept: list[int] = []
    for index in order:
        if not kept or points[index][1] > points[kept[-1]][1]:
            kept.append(index)
    return kept


def same_figures(row: Row, other: Row) -> bool:
    """Whether two rows are one artefact under two names, such as a last epoch that was the best."""
    mine, its = ((one.key, one.bytes, one.macs, one.scores, one.latency_ms, one.facts.get("epoch")) for one in (row, other))
    return mine == its


def distinct(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that are another under a second name."""
    kept: list[Row] = []
    for row in rows:
        if not any(same_figures(row, other) for other in kept):
            kept.append(row)
    return kept


def timing_in(row: Row, runtime: str) -> float | None:
    """A row's least median in one runtime, by whatever precision, in ms; None where it was not timed there."""
    return min((median for name, median in timings(row).items() if name.split()[0] == runtime), default=None)


def best_epoch(entries: Sequence[Mapping[str, Any]], task: Task) -> Mapping[str, Any] | None:
    """The entry of a `metrics.jsonl` with the best main metric on validation, the first of equals; None where none was evaluated."""
    evaluated = evaluated_epochs(entries, task)
    return max(evaluated, key=lambda entry: task.metric.gain(0.0, entry[f"val_{task.main}"])) if evaluated else None


def evaluated_epochs(entries: Sequence[Mapping[str, Any]], task: Task) -> list[Mapping[str, Any]]:
    """The entries of a `metrics.jsonl` that were evaluated on validation."""
    return [entry for entry in entries if entry.get(f"val_{task.main}") is not None]


def damage(data: Mapping[str, Any]) -> tuple[list[float], str]:
    """What each point of a sensitivity costs against the baseline, and its name with its unit: the main metric, or else the loss.

    The loss stands in where a point has no scores.
    """
    base, points, task = data["baseline"], data["points"], TASKS[data["task"]]
    if points and all(point["scores"] for point in points):
        scale, unit = (100, " (points)") if task.metric.percent else (1, "")
        lost = [scale * task.gain(point["scores"], base["scores"]) for point in points]
        return lost, f"{task.metric.label} {'lost' if task.metric.higher_is_better else 'added'}{unit}"
    return [point["loss"] - base["loss"] for point in points], "loss gained"
