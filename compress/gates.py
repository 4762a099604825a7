"""What a recipe expects of a stage (`expect`), held against its rows: a gate for each limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.ledger import Row
from compress.tasks import TASKS

ROUNDING = 1e-9  # a drop of as many words is a drop of as much
LIMITS = ("max_drop", "min_score", "max_latency_ms", "max_bytes")


@dataclass(frozen=True)
class Gate:
    """One limit on one row. name: of the limit, a key of `expect`. limit, value: in its unit. met: whether the row keeps it."""

    row: Row
    name: str
    limit: float
    value: float
    met: bool


def gates(stage: str, limits: Mapping[str, float], rows: Sequence[Row], first: Row) -> list[Gate]:
    """The gates of a stage: of its own row, or of each of its files where it has none. What was not timed has none of latency.

    limits: key of `expect` -> limit. rows: the stage's. first: the row that a drop is told against.
    """
    held = [row for row in rows if row.stage == stage] or rows
    return [gate(row, name, limit, first) for row in held for name, limit in limits.items() if name != "max_latency_ms" or row.latency_ms]


def gate(row: Row, name: str, limit: float, first: Row) -> Gate:
    """One limit held against one row."""
    task = TASKS[row.task]
    values = {
        "max_drop": -task.gain(first.scores, row.scores),
        "min_score": row.score,
        "max_latency_ms": max((timed["median"] for timed in row.latency_ms.values()), default=0.0),
        "max_bytes": row.bytes,
    }
    excess = task.metric.gain(row.score, limit) if name == "min_score" else values[name] - limit
    return Gate(row, name, limit, values[name], excess <= ROUNDING)
