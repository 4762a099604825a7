"""Sensitivity as text on the terminal; the plots are in `compress.report.plots`."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from compress.report.findings import damage
from compress.report.terminal import output
from compress.report.wording import named, printable
from compress.tasks import TASKS
from compress.tasks.task import Task

MOST_LAYERS = 15


def print_sensitivity(found: dict[str, Any]) -> None:
    """What every group's points cost, against the whole network with re-estimated statistics, and the recommended channels."""
    costs, what = damage(found)
    task, full = TASKS[found["task"]], bool(found["baseline"]["scores"])
    table = Table(title=f"{what} with one group pruned, by share of its channels removed", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("group", no_wrap=True)
    table.add_column("channels", justify="right")
    for ratio in found["ratios"]:
        table.add_column(f"{100 * ratio:.0f} %", justify="right")
    table.add_column("recommended", justify="right")
    cells = {(point["group"], point["ratio"]): f"{cost:.{2 if full else 3}f}" for point, cost in zip(found["points"], costs, strict=True)}
    for group in found["groups"]:
        row = [cells[group["name"], ratio] for ratio in found["ratios"]]
        table.add_row(group["name"], str(group["channels"]), *row, str(found["plan"]["channels"][group["name"]]))
    console = output()
    console.print(table)
    unpruned, base, plan = found["unpruned"], found["baseline"], found["plan"]
    console.print(f"Unpruned: {measured(task, unpruned)}, {unpruned['params']:,} parameters.", markup=False)
    told = f"{measured(task, base)}, which the points above are held against"
    console.print(f"Unpruned, statistics re-estimated as after pruning: {told}.", markup=False)
    share = 100 * (1 - plan["params"] / base["params"])
    console.print(f"Recommended: {plan['params']:,} parameters, {share:.0f} % fewer.", markup=False)
    console.print("In a recipe: `- prune: {allocation: sensitivity, target: {params: -50%}}`.", markup=False)
    if full:
        console.print(agreement(task, found["rank_correlation"]), markup=False)


def print_quantization(found: dict[str, Any]) -> None:
    """The most sensitive layers of a `sensitivity_quantize.json`."""
    task = TASKS[found["task"]]
    table = Table(title="One layer in 8 bits, the others in float", title_justify="left", box=box.SIMPLE_HEAD)
    for head in ("layer", "difference of the outputs", task.metric.heading):
        table.add_column(head, justify="left" if head == "layer" else "right", no_wrap=True)
    ranked = sorted(found["points"], key=lambda point: -point["loss"])
    for point in ranked[:MOST_LAYERS]:
        score = task.metric.shown(point["scores"][task.main]) if point["scores"] else ""
        table.add_row(point["layer"], f"{point['loss']:.2e}", score)
    console = output()
    console.print(table)
    console.print(f"{len(ranked)} layers measured; all in float: {measured(task, found['baseline'])}.", markup=False)
    console.print(agreement(task, found["rank_correlation"]), markup=False)


def measured(task: Task, point: dict[str, Any]) -> str:
    """The main metric, or the loss where there are no scores."""
    return printable(named(task.metric, point["scores"][task.main])) if point["scores"] else f"loss {point['loss']:.3f}"


def agreement(task: Task, correlation: float | None) -> str:
    """How well the fast measurement predicted the slow one."""
    what = f"the loss and of what {task.metric.label} loses"
    if correlation is None:
        return f"Rank correlation (Spearman) of {what}: not defined, too few points or none of them moved."
    return f"Rank correlation (Spearman) of {what}: {correlation:.2f}."
