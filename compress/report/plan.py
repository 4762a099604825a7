"""A plan as people read it: a table of stages, and one of channel groups for each prune stage."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from compress.report.terminal import output


def print_plan(plan: dict[str, Any]) -> None:
    """Print what :func:`compress.plan.plan` gives."""
    console = output()
    table = Table(title=f"{plan['recipe']}, in {plan['folder']}", title_justify="left", box=box.SIMPLE_HEAD)
    for head in ("stage", "kind", "from", "state", *NUMBERS):
        table.add_column(head, justify="right" if head in NUMBERS else "left")
    for stage in plan["stages"]:
        table.add_row(stage["name"], stage["kind"], stage["parent"] or "", stage["state"], *numbers(stage))
    console.print(table)
    for stage in plan["stages"]:
        if stage["kind"] == "prune":
            console.print(groups_table(stage) if stage["groups"] else f"{stage['name']}: its groups depend on an earlier prune stage.")
    console.print(
        f"To do: {at_most(plan)}{duration(plan['seconds'])}, guessed from a few timed steps here; measuring and exporting come on top."
    )


# Of the slower of input and step; below it, a part of the time is lost to waiting.
WORTH_SAYING = 0.9
NUMBERS = ("params", "MACs", "MB", "time")


def numbers(stage: dict[str, Any]) -> list[str]:
    """Size and time of one stage; `?` where weights decide that are not there yet."""
    scales = (("params", 1e6, "{:.3f} M"), ("macs", 1e9, "{:.3f} G"), ("bytes", 1e6, "{:.3f}"))
    found = ["" if key not in stage else "?" if stage[key] is None else form.format(stage[key] / scale) for key, scale, form in scales]
    return [*found, "" if stage["state"] == "in the cache" else at_most(stage) + duration(stage["seconds"])]


def at_most(guessed: dict[str, Any]) -> str:
    """What stands before a time that is that of a larger network."""
    return "up to " if guessed["at_most"] else ""


def groups_table(stage: dict[str, Any]) -> Table:
    """Every group of one prune stage."""
    table = Table(title=f"{stage['name']}: channels that go together", title_justify="left", box=box.SIMPLE_HEAD)
    for head in ("group", "before", "after", "with it"):
        table.add_column(head, justify="right" if head in ("before", "after") else "left", overflow="fold")
    for group in stage["groups"]:
        after = "?" if group["after"] is None else str(group["after"])
        note = "kept" if group["protected"] else ", ".join(group["members"][1:])
        table.add_row(group["name"], str(group["before"]), after, note)
    return table


LONG = 12 * 3600  # seconds: more than a night


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate_text(made: dict[str, Any]) -> str:
    """What :func:`compress.plan.plan` says of the time, in a sentence; empty where nothing is to be trained.

    Above :data:`LONG` it names the epochs by which the training would take as long.
    """
    if not made["seconds"]:
        return ""
    begun = "Up to" if made["at_most"] else "About"
    told = f"{begun} {duration(made['seconds'])} of training on this machine, guessed from a few timed steps; all else comes on top."
    if made["seconds"] <= LONG:
        return told
    share = LONG / made["seconds"]
    fewer = [
        f"-o stages.{stage['name']}.{'train.' if stage['kind'] == 'quantize' else ''}epochs={max(1, int(stage['epochs'] * share))}"
        for stage in made["stages"]
        if stage["seconds"] and stage.get("epochs") and "/" not in stage["name"]
    ]
    return f"{told} With {' '.join(fewer)} it would be {duration(LONG)}." if fewer else told


def throughput_text(rates: dict[str, Any]) -> str:
    """What :func:`compress.throughput.throughput` gives, in words."""
    pipeline, step, together = (rates[name] for name in ("pipeline", "step", "together"))
    height, width = rates["crop"]
    crop = height if height == width else f"{height}x{width}"
    lines = [
        f"{rates['stage']}: pipeline {pipeline:.3g} img/s, step {step:.3g} img/s, together {together:.3g} img/s, "
        f"{rates['share']:.2f} of the slower",
        f"crop {crop}, batch {rates['batch']}, {rates['workers']} worker(s); {rates['params'] / 1e6:.3f} M parameters on "
        f"{rates['device']} in {rates['precision']}, {rates['threads']} thread(s), {rates['cpu']}",
    ]
    if pipeline < step or rates["share"] < WORTH_SAYING:
        lines.append("Training waits for its input: give the stage more `workers`.")
    return "\n".join(lines)
