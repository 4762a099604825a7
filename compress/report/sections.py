"""The parts of the page that are about one experiment. Every function gives HTML; all text from files is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from compress.gates import Gate
from compress.ledger import Row, caption, error_text, slower
from compress.report.collect import Experiment, StageFacts, failed
from compress.report.findings import best, fastest, recommended, scatter, shippable, timing_in, tolerance_text
from compress.report.gallery import scored_on, timed_on
from compress.report.wording import SPACE, billions, change, figure, megabytes, milliseconds, named, points


def headline(experiment: Experiment) -> str:
    """What went in, what came out, what to ship, and where int8 does not pay."""
    rows, first, pick = experiment.rows, experiment.rows[0], recommended(experiment.rows, failed(experiment))
    shown = f'<p class="pick-text">{to_ship(first, pick)}</p>' if pick else f'<p class="warn">{nothing_to_ship(rows)}</p>'
    parts = [f"<p>{went_in(first)} {came_out(rows)}</p>", shown, *(f'<p class="warn">{warning}</p>' for warning in warnings(rows))]
    return f'{tiles(first, pick or first)}\n<div class="told">{"".join(parts)}</div>'


def summary(experiments: Sequence[Experiment]) -> str:
    """The recommended artefacts of several experiments, a line each."""
    lines = "".join(
        f'<tr><th scope="row">{escape(experiment.name)}</th>{"".join(f"<td>{cell}</td>" for cell in summary_cells(experiment))}</tr>'
        for experiment in experiments
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("experiment", "recommended", "score", "latency", "size"))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Recommended artefacts"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
        '<p class="soft">Scores and latencies compare only where the small print below them is the same.</p>'
    )


def summary_cells(experiment: Experiment) -> tuple[str, ...]:
    """What is recommended of an experiment, its score and latency, each with what it was measured on, and its size."""
    pick = recommended(experiment.rows, failed(experiment))
    if pick is None:
        return ("nothing: all files fail a gate", "", "", "")
    median, where = fastest(pick)
    timed = f"{milliseconds(median)} ({escape(where)})<small>{escape(timed_on(pick, where))}</small>" if where else "not timed"
    score = f"{escape(named(pick.metric, pick.score))}<small>{escape(scored_on(experiment, pick))}</small>"
    return escape(pick.stage), score, timed, megabytes(pick.bytes)


def tiles(first: Row, pick: Row) -> str:
    """The recommended artefact's figures, each with what it was."""
    before, now = pair_of_latencies(first, pick)
    metric = first.metric
    score = metric.label[:1].upper() + metric.label[1:]
    size = ("Size", megabytes(pick.bytes), megabytes(first.bytes), change(pick.bytes, first.bytes))
    costs = [
        *(
            [("Multiply-accumulates", billions(pick.macs), billions(first.macs), change(pick.macs, first.macs))]
            if pick.macs is not None and first.macs is not None
            else []
        ),
    ]
    timed = []
    if now is not None:
        was, by = (milliseconds(before), change(now, before)) if before is not None else ("not timed there", "")
        timed = [(f"Latency, {fastest(pick)[1]}", milliseconds(now), was, by)]
    scored = (score, figure(metric, pick.score), figure(metric, first.score), points(metric, pick.score - first.score) + error_text(pick))
    facts = [scored, *timed, size, *costs]
    cells = (
        f'<div><dt>{escape(name)}</dt><dd class="figure">{new}</dd><dd class="before">{escape(moved(pick is first, old, by))}</dd></div>'
        for name, new, old, by in facts
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def moved(unchanged: bool, old: str, by: str) -> str:
    """What a figure was, and by how much it changed."""
    return "as it went in" if unchanged else f"was {old}, {by}" if by else f"was {old}"


def pair_of_latencies(first: Row, pick: Row) -> tuple[float | None, float | None]:
    """Medians, in ms, of the first row and of another in the runtime where that one is fastest; None where not timed."""
    now, where = fastest(pick)
    return (timing_in(first, where.split()[0]), now) if where else (None, None)


def went_in(first: Row) -> str:
    return (
        f"<b>{escape(first.stage)}</b> went in: {megabytes(first.bytes)}, {cost_text(first)}"
        f"{escape(named(first.metric, first.score))} on {first.images} {escape(first.split)} images."
    )


def cost_text(row: Row) -> str:
    """What the network costs; nothing of a pipeline, whose parts have rows of their own."""
    if row.params is None or row.macs is None:
        return ""
    return f"{row.params / 1e6:.2f}{SPACE}M parameters, {billions(row.macs)} multiply-accumulates, "


def came_out(rows: Sequence[Row]) -> str:
    """The extremes of what can be shipped."""
    choice = shippable(rows)
    smallest, top, quickest = (
        min(choice, key=lambda row: row.bytes),
        best(choice),
        min(choice, key=lambda row: fastest(row)[0]),
    )
    what = "exported files" if choice[0].kind in ("export", "assemble") else "checkpoints (nothing was exported)"
    told = [
        f"the smallest is {artefact(smallest)} with {megabytes(smallest.bytes)}",
        f"the best {artefact(top)} with {escape(named(top.metric, top.score))}",
    ]
    if fastest(quickest)[1]:
        told.append(f"the fastest {artefact(quickest)} with {milliseconds(fastest(quickest)[0])} in {escape(fastest(quickest)[1])}")
    return f"Of the {len(choice)} {what}, {', '.join(told[:-1])} and {told[-1]}."


def artefact(row: Row) -> str:
    return f"<b>{escape(row.stage)}</b>"


def to_ship(first: Row, pick: Row) -> str:
    """The recommendation and its reason."""
    if pick is first:
        what = escape(pick.metric.label)
        rule = "faster" if fastest(pick)[1] else "smaller"
        near = f"within {tolerance_text(pick.metric)} of its {what}"
        return f"Recommended: {artefact(pick)} itself; of what meets the recipe's limits, nothing {rule} comes {near}."
    before, now = pair_of_latencies(first, pick)
    times = f", {before / now:.1f} times the speed of {escape(first.stage)} in {escape(fastest(pick)[1])}" if before and now else ""
    smaller = f"{first.bytes / pick.bytes:.1f} times smaller" if pick.bytes and pick.bytes < first.bytes else "no smaller"
    near = f"within {tolerance_text(pick.metric)} of the best {escape(pick.metric.label)}"
    rule = f"the fastest of those {near}" if now is not None else f"the smallest of those {near}"
    return (
        f"Recommended: {artefact(pick)} (<code>{escape(pick.artefact)}</code>), {rule}: {smaller}{times}; it {escape(kept(first, pick))}."
    )


def nothing_to_ship(rows: Sequence[Row]) -> str:
    """Why nothing is recommended."""
    what = "exported files" if shippable(rows)[0].kind in ("export", "assemble") else "checkpoints"
    return f"Nothing is recommended: none of the {what} is what the recipe expects (see the gates)."


def gates_table(experiment: Experiment) -> str:
    """What the recipe expects, a gate a row; nothing where it expects nothing."""
    if not experiment.gates:
        return ""
    lines = "".join(
        f'<tr{"" if gate.met else " class=failed"}><th scope="row">{escape(gate.row.stage)}</th><td>{escape(gate_text(gate))}</td>'
        f"<td>{gate_value(gate, gate.limit)}</td><td>{gate_value(gate, gate.value)}</td><td>{'met' if gate.met else 'not met'}</td></tr>"
        for gate in experiment.gates
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("gate", "expected", "limit", "measured", "result"))
    label = f"Gates of {escape(experiment.name, quote=True)}"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
        '<p class="soft">What fails a gate is never recommended.</p>'
    )


def gate_text(gate: Gate) -> str:
    """What a gate asks for."""
    label = gate.row.metric.label
    texts = {
        "max_drop": f"loss of {label} at most",
        "min_score": f"{label} at least" if gate.row.metric.higher_is_better else f"{label} at most",
        "max_latency_ms": "latency at most",
        "max_bytes": "size at most",
    }
    return texts[gate.name]


def gate_value(gate: Gate, value: float) -> str:
    """A limit, or what was measured, in its unit."""
    if gate.name == "max_drop":
        return points(gate.row.metric, value).lstrip("+")
    if gate.name == "min_score":
        return figure(gate.row.metric, value)
    return milliseconds(value) if gate.name == "max_latency_ms" else megabytes(int(value))


def kept(first: Row, pick: Row) -> str:
    """What is left of the main metric: of a percentage that should be high, how much of what there was."""
    if pick.metric.percent and pick.metric.higher_is_better and first.score > 0:
        return f"keeps {100 * pick.score / first.score:.1f}{SPACE}% of the {pick.metric.label}"
    return f"has {named(pick.metric, pick.score)}"


def warnings(rows: Sequence[Row]) -> list[str]:
    """Where int8 is slower, and how far timings differ by chance."""
    found = [
        f"In {escape(case.runtime)} the int8 {artefact(case.int8)} is <b>slower</b> than the {escape(case.precision)} "
        f"{artefact(case.floating)}: {milliseconds(case.int8_ms)} against {milliseconds(case.float_ms)}. There, take the float one for "
        f"speed ({escape(named(case.floating.metric, case.floating.score))} against "
        f"{figure(case.int8.metric, case.int8.score)}), the int8 one for size alone."
        for case in slower(rows)
    ]
    spread = scatter(rows)
    if spread and spread[2] > 1.2 * spread[1]:
        name, low, high = spread
        found.append(
            f"Timings scatter: in {escape(name)}, networks of equal layers took between {milliseconds(low)} and {milliseconds(high)} from "
            "row to row. A smaller difference than that says nothing."
        )
    return found


def provenance(experiment: Experiment) -> str:
    """Where the figures come from: enough to make them again."""
    facts = {
        "Folder": experiment.folder,
        "Measured": caption(experiment.rows),
        "Seed": joined(row.seed for row in experiment.rows),
        "Runtimes": joined(name for row in experiment.rows for name in (row.runtime, *row.latency_ms)),
        "CPU": joined(row.facts.get("cpu") for row in experiment.rows),
        "Trained on": joined(
            f"{facts.get('device', '?')}, {facts.get('threads', '?')} threads" for facts in manifests(experiment) if facts
        ),
        "Versions": joined(f"{name} {value}" for facts in manifests(experiment) for name, value in facts.get("versions", {}).items()),
        "Data fingerprints": joined(f"{name} {value}" for facts in manifests(experiment) for name, value in facts.get("data", {}).items()),
    }
    lines = (f'<tr><th scope="row">{name}</th><td>{lines_of(value)}</td></tr>' for name, value in facts.items() if value)
    recipe = f"<details><summary>Resolved recipe</summary><pre>{escape(experiment.recipe)}</pre></details>" if experiment.recipe else ""
    return (
        f'<table class="facts"><tbody>{"".join(lines)}</tbody></table>'
        f"{foreign(experiment)}<h4>Stages, each under the one that it starts from</h4>{tree(experiment.stages, None)}{recipe}"
    )


def foreign(experiment: Experiment) -> str:
    """What lies in the folder and is not shown."""
    if not experiment.foreign:
        return ""
    return (
        f'<p class="soft">Of other weights than those in the table, and therefore not shown: {escape(", ".join(experiment.foreign))}.</p>'
    )


def manifests(experiment: Experiment) -> list[dict[str, Any]]:
    return [stage.manifest for stage in experiment.stages]


def joined(values: Any) -> str:
    """Different values, each once, a line each."""
    return "\n".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def lines_of(value: object) -> str:
    return "<br>".join(escape(line) for line in str(value).splitlines())


def tree(stages: Sequence[StageFacts], parent: str | None) -> str:
    """The stages that start from `parent`, each with those that start from it; one whose parent is not in the ledger is a root."""
    names = {stage.name for stage in stages}
    here = [stage for stage in stages if (stage.parent if stage.parent in names else None) == parent and stage.name != parent]
    if not here:
        return ""
    items = (f"<li>{stage_line(stage)}{tree(stages, stage.name)}</li>" for stage in here)
    return f"<ul{' class=tree' if parent is None else ''}>{''.join(items)}</ul>"


def stage_line(stage: StageFacts) -> str:
    return f"<b>{escape(stage.name)}</b> ({escape(stage.kind)}, {stage.seconds:.0f} s) <code>key {escape(stage.key[:16])}</code>"


def inline(svg: str, identity: str, alt: str) -> str:
    """An SVG document as a part of the page: in the page's own ink, its names unlike those of other figures, told in words by `alt`."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r' (width|height)="[\d.]+pt"', "", body, count=2)
    body = re.sub(r'\bid="', f'id="{identity}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{identity}-", body)
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(alt, quote=True)}"', 1)
