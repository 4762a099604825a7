"""Sensitivity as text on the terminal; the plots are in `compress.report.plots`."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

MOST_LAYERS = 15


def print_sensitivity(found: dict[str, Any]) -> None:
    """Every group's points and the recommended channels of a `sensitivity.json`."""
    full = found["rank_correlation"] is not None or any(point["hmean"] is not None for point in found["points"])
    measure = "Hmean %" if full else "loss"
    table = Table(title=f"{measure} with one group pruned, by share of its channels removed", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("group", no_wrap=True)
    table.add_column("channels", justify="right")
    for ratio in found["ratios"]:
        table.add_column(f"{100 * ratio:.0f} %", justify="right")
    table.add_column("recommended", justify="right")
    points = {(point["group"], point["ratio"]): point for point in found["points"]}
    for group in found["groups"]:
        cells = [figure(points[group["name"], ratio], full) for ratio in found["ratios"]]
        table.add_row(group["name"], str(group["channels"]), *cells, str(found["plan"]["channels"][group["name"]]))
    console = wide_console()
    console.print(table)
    base, plan = found["baseline"], found["plan"]
    console.print(f"Unpruned: {measure} {figure(base, full)}, {base['params']:,} parameters.", markup=False)
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
    console = wide_console()
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


def wide_console() -> Console:
    """Standard output, not folded where it is no terminal."""
    return Console(highlight=False, width=None if Console().is_terminal else 200)
