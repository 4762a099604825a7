"""The page about a sweep: its front, which answers to the mouse, and all its trials. It holds all that it shows and asks no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from compress import outputs
from compress.errors import CompressError
from compress.files import read_text
from compress.ledger import Row
from compress.records import SweepTrial
from compress.report.findings import timings
from compress.report.page import document, section
from compress.report.wording import figure, megabytes, named
from compress.sweeps import results
from compress.sweeps.settings import Sweep
from compress.sweeps.timing import rows_to_time
from compress.sweeps.trials import read_settings, read_trials

MARKS = {
    "picked": "the recommended trial",
    "best": "on the front",
    "beaten": "another is better in both",
    "spread": "least to greatest median",
}
COSTS = {"latency": "median latency, ms", "megabytes": "size, MB", "gmacs": "multiply-accumulates, G"}


def write_sweep(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write the report on one sweep to `out`; returns that.

    Raises CompressError where more than one folder is given, where no trial has finished, and for a file that is a user's own.
    """
    if len(folders) != 1:
        raise CompressError("A report is about one sweep, or about experiments; name one sweep's folder alone.")
    outputs.check_file(out)
    folder = folders[0]
    sweep, trials = read_settings(folder), list(read_trials(folder).found.values())
    if not any(trial["state"] == "finished" for trial in trials):
        raise CompressError(f"No trial of {folder} has finished yet, so there is nothing to show.")
    recipe = folder / results.RECOMMENDED
    outputs.write({out: page(folder.resolve().name, sweep, trials, read_text(recipe) if recipe.exists() else "").encode()})
    return [out]


def page(name: str, sweep: Sweep, trials: Sequence[SweepTrial], recipe: str) -> str:
    """The whole document. recipe: the text of the recommended one, empty where there is none."""
    script = Path(__file__).with_name("sweep.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    held = json.dumps(drawn(sweep, trials)).replace("<", "\\u003c")
    body = [
        section("Result", result(sweep, trials)),
        section("Front", front(sweep, trials)),
        section("Trials", table(sweep, trials)),
        section(
            "Recommended recipe",
            f"<details><summary>{results.RECOMMENDED}</summary><pre>{escape(recipe)}</pre></details>" if recipe else "",
        ),
    ]
    scripts = f'<script type="application/json" id="points">{held}</script>\n<script>{script}</script>\n'
    return document(f"Sweep: {name}", [part for part in body if part], policy=policy, scripts=scripts)


def result(sweep: Sweep, trials: Sequence[SweepTrial]) -> str:
    """How many trials there were, and what to take."""
    states = [trial["state"] for trial in trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    limits = ", ".join(f"{name} {value}" for name, value in sweep.limits.model_dump(exclude_none=True).items()) or "none"
    told = f"<p>{len(states)} trials of <code>{escape(sweep.recipe)}</code>: {counted}. Limits: {escape(limits)}.</p>"
    pick = results.recommended(sweep, trials)
    found = results.figures(sweep, pick) if pick else None
    if pick is None or found is None:
        return f'{told}<p class="warn">No trial keeps to the limits.</p>'
    latency = f", {found.latency_ms:.2f} ms in {escape(found.where)}" if found.latency_ms is not None else ""
    figures = f"{escape(named(found.row.metric, found.row.score))}, {megabytes(found.row.bytes)}{latency}"
    values = escape(varied(pick))
    return f'{told}<p class="pick-text">Recommended: <b>{pick["trial"]}</b> ({values}), {escape(found.row.stage)}: {figures}.</p>'


def varied(trial: SweepTrial) -> str:
    """What is a trial's own: `stages.pruned.ratio 0.5, seed 1`."""
    own = {**trial["values"], **({"seed": trial["seed"]} if trial["seed"] is not None else {})}
    return ", ".join(f"{key} {results.shown(value)}" for key, value in own.items())


def front(sweep: Sweep, trials: Sequence[SweepTrial]) -> str:
    """The figure with its choices; the script draws it."""
    runtimes = dict.fromkeys(point["runtime"] for point in drawn(sweep, trials)["points"] if point["runtime"])
    shown = "".join(f"<option>{escape(name)}</option>" for name in runtimes)
    costs = "".join(f'<option value="{name}">{text}</option>' for name, text in COSTS.items())
    marks = "".join(f"<li>{mark(kind)} {told}</li>" for kind, told in MARKS.items())
    return (
        f'<p class="choices"><label>Runtime <select id="runtime"><option value="">all</option>{shown}</select></label> '
        f'<label>Cost <select id="cost">{costs}</select></label></p>'
        '<svg id="front" class="sweep" role="group" aria-label="Score against cost of all trials"></svg>'
        f'<ul class="key">{marks}</ul>'
        '<p id="told" role="status" class="soft">The figure needs a browser that runs the script of this page; the table has all.</p>'
    )


def mark(kind: str) -> str:
    """A point or a line as it is drawn, for the key."""
    shape = '<line x1="2" x2="30" y1="8" y2="8" class="spread"/>' if kind == "spread" else f'<circle cx="16" cy="8" r="6" class="{kind}"/>'
    return f'<svg class="sweep" viewBox="0 0 32 16" aria-hidden="true">{shape}</svg>'


def drawn(sweep: Sweep, trials: Sequence[SweepTrial]) -> dict[str, Any]:
    """What the script draws: a point for every artefact that was timed, in every runtime."""
    pick = results.recommended(sweep, trials)
    rows = [(trial, row) for trial in trials if trial["state"] == "finished" for row in rows_to_time(trial, sweep.row)]
    metric = rows[0][1].metric
    found = [point(trial, row, where, trial is pick) for trial, row in rows for where in (list(timings(row)) or [""])]
    return {"heading": metric.heading, "higher": metric.higher_is_better, "points": found}


def point(trial: SweepTrial, row: Row, where: str, picked: bool) -> dict[str, Any]:
    """One artefact in one runtime, `where`; empty where it was not timed."""
    values: Mapping[str, Any] = row.latency_ms.get(where, {})
    median = values.get("median")
    latency = f", {median:.2f} ms in {where}" if median is not None else ""
    score = figure(row.metric, row.score)
    return {
        "trial": trial["trial"],
        "runtime": where,
        "latency": median,
        "low": values.get("low"),
        "high": values.get("high"),
        "megabytes": row.bytes / 1e6,
        "gmacs": row.macs / 1e9 if row.macs is not None else None,
        "score": row.score * (100 if row.metric.percent else 1),
        "recommended": picked,
        "told": f"{trial['trial']} ({varied(trial)}), {row.stage}: {row.metric.label} {score}, {megabytes(row.bytes)}{latency}",
    }


def table(sweep: Sweep, trials: Sequence[SweepTrial]) -> str:
    """All trials."""
    lines = results.table(sweep, trials)
    head = results.headings(lines)
    names = "".join(f'<th scope="col"{note_class(name)}>{escape(name).replace(".", ".<wbr>")}</th>' for name in head)
    body = "".join(
        f'<tr{" class=pick" if "recommended" in cells.get("note", "") else ""}><th scope="row">{escape(cells["trial"])}</th>'
        f"{''.join(f'<td{note_class(name)}>{escape(cells.get(name, str()))}</td>' for name in head[1:])}</tr>"
        for cells in lines
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of all trials"><table class="trials">'
        f"<thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def note_class(heading: str) -> str:
    """Notes are sentences, which are broken into lines."""
    return ' class="note"' if heading == "note" else ""
