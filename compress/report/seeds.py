"""The same recipe by several seeds: what each stage gives in the mean, and how far the seeds are apart."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from compress.errors import CompressError
from compress.ledger import Row, caption

HEAD = ["stage", "seeds", "params", "MACs", "Hmean %", "lowest", "highest", "delta"]


def seeds_table(experiments: Sequence[Sequence[Row]]) -> str:
    """Markdown: for every stage that all the experiments have, means over them, and the lowest and highest Hmean.

    Raises CompressError for fewer than two experiments, and for two of the same seed.
    """
    seeds = [rows[0].seed for rows in experiments]
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise CompressError(f"--seeds takes two experiments or more, each of another seed; given are the seeds {seeds}.")
    found = [{row.stage: row for row in rows} for rows in experiments]
    stages = [row.stage for row in experiments[0] if all(row.stage in rows for rows in found)]
    body = [line(stage, [rows[stage] for rows in found]) for stage in stages]
    lines = [f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] + ["---:"] * (len(HEAD) - 1), *body)]
    told = dict.fromkeys(
        text.split("; seed")[0] for rows in experiments for text in caption(rows).splitlines() if text.startswith("Hmean on")
    )
    return "\n".join([*lines, "", *(f"{text}; seeds {', '.join(map(str, seeds))}" for text in told)])


def line(stage: str, rows: Sequence[Row]) -> list[str]:
    """One stage's cells."""
    hmeans = [100 * row.hmean for row in rows]
    return [
        stage,
        str(len(rows)),
        f"{mean(row.params for row in rows) / 1e6:.3f} M",
        f"{mean(row.macs for row in rows) / 1e9:.3f} G",
        f"{mean(hmeans):.2f}",
        f"{min(hmeans):.2f}",
        f"{max(hmeans):.2f}",
        f"{100 * mean(row.hmean_delta for row in rows):+.2f}",
    ]
