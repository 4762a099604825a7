"""A plan as people read it: a table of stages, and one of channel groups for each prune stage."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_plan(plan: dict[str, Any], console: Console | None = None) -> None:
    """Print what :func:`compress.plan.plan` gives."""
    console = console or Console(highlight=False)
    table = Table(title=f"{plan['recipe']}, in {plan['folder']}", title_justify="left")
    for head, justify in (("stage", "left"), ("kind", "left"), ("from", "left"), ("state", "left"), *((h, "right") for h in NUMBERS)):
        table.add_column(head, justify=justify)
    for stage in plan["stages"]:
        table.add_row(stage["name"], stage["kind"], stage["parent"] or "", stage["state"], *numbers(stage))
    console.print(table)
    for stage in plan["stages"]:
        if stage["kind"] == "prune":
            console.print(groups_table(stage) if stage["groups"] else f"{stage['name']}: its groups depend on an earlier prune stage.")
    console.print(f"To do: {duration(plan['seconds'])}, guessed from a few timed steps here; measuring and exporting come on top.")


NUMBERS = ("params", "MACs", "MB", "time")


def numbers(stage: dict[str, Any]) -> list[str]:
    """Size and time of one stage; `?` where weights decide that are not there yet."""
    scales = (("params", 1e6, "{:.3f} M"), ("macs", 1e9, "{:.3f} G"), ("bytes", 1e6, "{:.3f}"))
    found = ["" if key not in stage else "?" if stage[key] is None else form.format(stage[key] / scale) for key, scale, form in scales]
    return [*found, "" if stage["state"] == "in the cache" else duration(stage["seconds"])]


def groups_table(stage: dict[str, Any]) -> Table:
    """Every group of one prune stage."""
    table = Table(title=f"{stage['name']}: channels that go together", title_justify="left")
    for head, justify in (("group", "left"), ("before", "right"), ("after", "right"), ("with it", "left")):
        table.add_column(head, justify=justify, overflow="fold")
    for group in stage["groups"]:
        after = "?" if group["after"] is None else str(group["after"])
        note = "kept" if group["protected"] else ", ".join(group["members"][1:])
        table.add_row(group["name"], str(group["before"]), after, note)
    return table


def duration(seconds: float | None) -> str:
    """`40 s`, `12 min`, `3.5 h`; `?` where it is not known."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
