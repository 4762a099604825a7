"""The same recipe by several seeds: what each stage gives in the mean, and how far the seeds are apart."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from compress.errors import CompressError
from compress.ledger import Row, conditions, table


def seeds_table(experiments: Sequence[Sequence[Row]]) -> str:
    """Markdown: for every stage that all the experiments have, means over them, and the least and the greatest main metric.

    Raises CompressError for fewer than two experiments, for two of the same seed, and for those of several tasks.
    """
    seeds = [rows[0].seed for rows in experiments if rows]
    if len(seeds) < 2 or len(set(seeds)) < len(experiments):
        raise CompressError(f"--seeds takes two experiments or more, each of another seed; given are the seeds {seeds}.")
    tasks = sorted({row.task for rows in experiments for row in rows})
    if len(tasks) > 1:
        raise CompressError(f"--seeds takes experiments of one task; given are those of {' and '.join(tasks)}.")
    found = [{row.stage: row for row in rows} for rows in experiments]
    stages = [row.stage for row in experiments[0] if all(row.stage in rows for rows in found)]
    metric = experiments[0][0].metric
    head = ["stage", "seeds", "params", "MACs", metric.heading, "lowest", "highest", "delta"]
    body = [line(head, [rows[stage] for rows in found]) for stage in stages]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] + ["---:"] * (len(head) - 1), *body)]
    told = dict.fromkeys(conditions(row) for rows in experiments for row in rows)
    return "\n".join([*lines, "", *(f"{text}; seeds {', '.join(map(str, seeds))}" for text in told)])


def line(head: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """One stage's cells."""
    scores, metric = [row.score for row in rows], rows[0].metric
    names, (texts,) = table([mean_row(rows)])
    spread = {"seeds": str(len(rows)), "lowest": metric.shown(min(scores)), "highest": metric.shown(max(scores))}
    known = dict(zip(names, texts, strict=True)) | spread
    return [known.get(name, "") for name in head]  # a pipeline has no parameters of its own


def mean_row(rows: Sequence[Row]) -> Row:
    """The first row with means over all instead of its own figures."""
    first = rows[0]
    counts = {name: [getattr(row, name) for row in rows] for name in ("params", "macs")}
    means = {name: None if None in values else round(mean(values)) for name, values in counts.items()}
    return first.model_copy(
        update={
            **means,
            "scores": {first.main: mean(row.score for row in rows)},
            "delta": mean(row.delta for row in rows),
            "delta_error": None,  # that of one seed; the lowest and the highest tell how far seeds are apart
        }
    )
