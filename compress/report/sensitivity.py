"""Sensitivity as text on the terminal; the plots are in `compress.report.plots`."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from compress.report.findings import damage
from compress.report.terminal import output

MOST_LAYERS = 15


def print_sensitivity(found: dict[str, Any]) -> None:
    """What every group's points cost, against the whole network with re-estimated statistics, and the recommended channels."""
    costs, what = damage(found)
    table = Table(title=f"{what} with one group pruned, by share of its channels removed", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("group", no_wrap=True)
    table.add_column("channels", justify="right")
    for ratio in found["ratios"]:
        table.add_column(f"{100 * ratio:.0f} %", justify="right")
    table.add_column("recommended", justify="right")
    full = found["baseline"]["hmean"] is not None
    cells = {(point["group"], point["ratio"]): f"{cost:.{2 if full else 3}f}" for point, cost in zip(found["points"], costs, strict=True)}
    for group in found["groups"]:
        row = [cells[group["name"], ratio] for ratio in found["ratios"]]
        table.add_row(group["name"], str(group["channels"]), *row, str(found["plan"]["channels"][group["name"]]))
    console = output()
    console.print(table)
    unpruned, base, plan = found["unpruned"], found["baseline"], found["plan"]
    measure = "Hmean %" if full else "loss"
    console.print(f"Unpruned: {measure} {figure(unpruned, full)}, {unpruned['params']:,} parameters.", markup=False)
    told = f"{measure} {figure(base, full)}, which the points above are held against"
    console.print(f"Unpruned, statistics re-estimated as after a cut: {told}.", markup=False)
    share = 100 * (1 - plan["params"] / base["params"])
    console.print(f"Recommended: {plan['params']:,} parameters, {share:.0f} % fewer.", markup=False)
    console.print("In a recipe: `- prune: {allocation: sensitivity, target: {params: -50%}}`.", markup=False)
    if full:
        console.print(agreement(found["rank_correlation"]), markup=False)


def print_quantization(found: dict[str, Any]) -> None:
    """The most sensitive layers of a `sensitivity_quantize.json`."""
    table = Table(title="One layer in 8 bits, the others in float", title_justify="left", box=box.SIMPLE_HEAD)
    for head, justify in (("layer", "left"), ("difference of the maps", "right"), ("Hmean %", "right")):
        table.add_column(head, justify=justify, no_wrap=True)
    ranked = sorted(found["points"], key=lambda point: -point["loss"])
    for point in ranked[:MOST_LAYERS]:
        table.add_row(point["layer"], f"{point['loss']:.2e}", "" if point["hmean"] is None else f"{100 * point['hmean']:.2f}")
    console = output()
    console.print(table)
    console.print(f"{len(ranked)} layers measured; all in float: Hmean {100 * found['baseline']['hmean']:.2f} %.", markup=False)
    console.print(agreement(found["rank_correlation"]), markup=False)


def figure(point: dict[str, Any], full: bool) -> str:
    """Hmean in percent, or the loss."""
    return f"{100 * point['hmean']:.2f}" if full else f"{point['loss']:.3f}"


def agreement(correlation: float | None) -> str:
    """How well the fast pass predicted the slow one."""
    if correlation is None:
        return "Rank correlation of loss and loss of Hmean: not defined, too few points or none of them moved."
    return f"Rank correlation (Spearman) of the loss and the loss of Hmean: {correlation:.2f}."
