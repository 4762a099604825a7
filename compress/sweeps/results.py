"""What the trials of a sweep say together: a table, the front, and which of them to take."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import recipe as recipes
from compress.errors import CompressError
from compress.files import write_text
from compress.gates import ROUNDING
from compress.ledger import Row, harmless
from compress.records import SweepTrial
from compress.report.findings import fastest
from compress.session import others_of
from compress.sweeps.settings import Sweep
from compress.sweeps.trials import Job, Trials, overrides_of

TABLES, RECOMMENDED = ("table.md", "table.csv"), "recommended.yml"


@dataclass(frozen=True)
class Figures:
    """What counts of a trial that has finished. spread: of the latency, the least and the greatest median. where: it was reached."""

    row: Row
    latency_ms: float | None
    spread: tuple[float, float] | None
    where: str

    def value(self, objective: str) -> float | None:
        """An objective's value, as it was measured; None where it was not: multiply-accumulates of a pipeline are not counted."""
        if objective == "score":
            return self.row.score
        return self.latency_ms if objective == "latency_ms" else getattr(self.row, objective)

    def goodness(self, objective: str) -> float | None:
        """The same, the more the better."""
        value = self.value(objective)
        return None if value is None else self.row.metric.gain(0.0, value) if objective == "score" else -value


def figures(sweep: Sweep, trial: SweepTrial) -> Figures | None:
    """What counts of a trial; None for one that has not finished.

    Raises CompressError where it has no such row, or the row was not timed in such a runtime.
    """
    if trial["state"] != "finished":
        return None
    rows = [Row.model_validate(row) for row in trial["rows"]]
    row = next((row for row in rows if row.stage == sweep.row), None) if sweep.row else rows[-1]
    if row is None:
        raise CompressError(f"row: the trials have no row '{sweep.row}'; they have {', '.join(row.stage for row in rows)}.")
    where = sweep.runtime or fastest(row)[1]
    if sweep.runtime and row.latency_ms and sweep.runtime not in row.latency_ms:
        raise CompressError(f"runtime: '{row.stage}' was not timed in {sweep.runtime}, but in {', '.join(row.latency_ms)}.")
    values = row.latency_ms.get(where)
    if values is None:
        return Figures(row, None, None, "")
    return Figures(row, values["median"], (values.get("low", values["median"]), values.get("high", values["median"])), where)


def judged(sweep: Sweep, trial: SweepTrial) -> list[float] | None:
    """The objectives' values of a trial in their order, the score the greater the better, all else the less; None where one is missing."""
    found = figures(sweep, trial)
    values = [found.goodness(name) if name == "score" else found.value(name) for name in sweep.objectives] if found else [None]
    return [value for value in values if value is not None] if None not in values else None


def broken_limits(sweep: Sweep, found: Figures) -> list[str]:
    """The limits that a trial does not keep to. One without a latency does not keep to a limit of it."""
    latency = found.latency_ms if found.latency_ms is not None else float("inf")
    has = {"max_drop": -found.row.delta - ROUNDING, "max_latency_ms": latency, "max_bytes": found.row.bytes}
    return [name for name, limit in sweep.limits.model_dump(exclude_none=True).items() if has[name] > limit]


def front(sweep: Sweep, trials: Sequence[SweepTrial]) -> list[str]:
    """Names of the trials that no other is better than in one objective and as good as in all others, in the order of the trials.

    Of trials with equal figures the first stands for all.
    """
    points = {trial["trial"]: point for trial in trials if (point := goodness(sweep, trial))}
    names = list(points)

    def beaten(place: int) -> bool:
        mine = points[names[place]]
        return any(
            all(its >= own for its, own in zip(points[other], mine, strict=True)) and (points[other] != mine or at < place)
            for at, other in enumerate(names)
            if at != place
        )

    return [name for place, name in enumerate(names) if not beaten(place)]


def goodness(sweep: Sweep, trial: SweepTrial) -> list[float] | None:
    """The objectives of a trial, each the more the better; None where one is missing."""
    found = figures(sweep, trial)
    values = [found.goodness(name) for name in sweep.objectives] if found else [None]
    return [value for value in values if value is not None] if None not in values else None


def recommended(sweep: Sweep, trials: Sequence[SweepTrial]) -> SweepTrial | None:
    """Of the front within the limits, the trial that is best in the first objective; None where no trial keeps to the limits."""
    kept = [trial for trial in trials if (found := figures(sweep, trial)) and not broken_limits(sweep, found)]
    names = front(sweep, kept)
    return max((trial for trial in kept if trial["trial"] in names), key=lambda trial: goodness(sweep, trial) or [], default=None)


def table(sweep: Sweep, trials: Sequence[SweepTrial]) -> list[dict[str, str]]:
    """A line for each trial: heading -> text."""
    on_front, pick = front(sweep, trials), recommended(sweep, trials)
    return [line(sweep, trial, trial["trial"] in on_front, trial is pick) for trial in trials]


def line(sweep: Sweep, trial: SweepTrial, on_front: bool, picked: bool) -> dict[str, str]:
    """One trial's line."""
    cells = {"trial": trial["trial"], **{key: shown(value) for key, value in trial["values"].items()}}
    if sweep.seeds:
        cells["seed"] = str(trial["seed"])
    found = figures(sweep, trial)
    if found is None:
        return {**cells, "state": trial["state"], "note": trial["why"]}
    row = found.row
    spread = f" ({found.spread[0]:.2f} to {found.spread[1]:.2f})" if found.spread else ""
    latency = f"{found.latency_ms:.2f}{spread}" if found.latency_ms is not None else ""
    notes = [*(["recommended"] if picked else []), *(["front"] if on_front else [])]
    notes += [f"breaks {name}" for name in broken_limits(sweep, found)]
    return {
        **cells,
        "state": trial["state"],
        row.metric.heading: row.metric.shown(row.score),
        "delta": row.metric.moved(row.delta),
        "MB": f"{row.bytes / 1e6:.3f}",
        "MACs": f"{row.macs / 1e9:.3f} G" if row.macs is not None else "",
        f"{found.where or 'latency'} ms": latency,
        "seconds": f"{trial['seconds']:.0f}",
        "note": ", ".join(notes),
    }


def shown(value: Any) -> str:
    """A value of a key, as a person reads it; `table.csv` has all digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def headings(lines: Sequence[dict[str, str]]) -> list[str]:
    """All headings, those of trials with figures in their order, the note last."""
    found = list(dict.fromkeys(name for cells in sorted(lines, key=len, reverse=True) for name in cells))
    return [*(name for name in found if name != "note"), "note"]


def markdown(sweep: Sweep, trials: Trials) -> str:
    """The table with its caption."""
    lines = table(sweep, list(trials.found.values()))
    head = headings(lines)
    rows = [head, ["---"] * len(head), *([cells.get(name, "") for name in head] for cells in lines)]
    body = "\n".join("| " + " | ".join(" ".join(text.replace("|", r"\|").split()) for text in row) + " |" for row in rows)
    counted = next((found for trial in trials.found.values() if (found := figures(sweep, trial))), None)
    told = (
        f"\nrow {counted.row.stage}; {counted.row.metric.label} on {counted.row.images} {counted.row.split} images; " if counted else "\n"
    )
    return f"{body}\n{told}objectives: {', '.join(sweep.objectives)}; latency: median of several turns (least to greatest)\n"


def comma_separated(sweep: Sweep, trials: Trials) -> str:
    """The same for programs, in full precision."""
    out = io.StringIO()
    values = {key: None for trial in trials.found.values() for key in trial["values"]}
    figures_of = ("score", "delta", "bytes", "macs", "latency_ms", "low", "high")
    writer = csv.writer(out)
    writer.writerow(["trial", *values, "seed", "state", "why", "seconds", "node", *figures_of])
    for trial in trials.found.values():
        found = figures(sweep, trial)
        own: list[Any] = [None] * len(figures_of)
        if found:
            low, high = found.spread or (None, None)
            own = [found.row.score, found.row.delta, found.row.bytes, found.row.macs, found.latency_ms, low, high]
        cells = [trial["trial"], *(trial["values"].get(key) for key in values), trial["seed"], trial["state"], trial["why"]]
        writer.writerow(harmless(cell) for cell in [*cells, trial["seconds"], trial["node"], *own])
    return out.getvalue()


def write(job: Job, trials: Trials) -> Path | None:
    """Both tables, and the recommended recipe where there is one; returns the path of that."""
    for name, text in zip(TABLES, (markdown(job.sweep, trials), comma_separated(job.sweep, trials)), strict=True):
        write_text(job.folder / name, text)
    path, pick = job.folder / RECOMMENDED, recommended(job.sweep, list(trials.found.values()))
    if pick is None:
        path.unlink(missing_ok=True)
        return None
    changed = overrides_of(job, pick["values"], pick["seed"])
    found = figures(job.sweep, pick)
    row = found.row if found else None
    told = (
        f"# Trial {pick['trial']} of {job.folder.name}: {row.metric.label} {row.metric.shown(row.score)}, {row.bytes} bytes\n"
        if row
        else ""
    )
    chosen = recipes.load_named(Path(job.sweep.recipe), changed)
    shared = [word for word in changed if word.startswith(("data.", "data="))] if others_of(chosen) else []
    if shared:
        words = " ".join(f"-o {shlex.quote(word)}" for word in shared)
        told += f"# The recipes of its teachers have their own data. As in the trial: compress run {path.name} {words}\n"
    write_text(path, told + chosen.dump())
    return path
