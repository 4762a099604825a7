"""What a ledger's rows and a sensitivity's points say: what to ship, where int8 does not pay, and how far timings can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.ledger import Row

# Of files this near, in Hmean, to the best one, the fastest is recommended: one point.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Slower:
    """An int8 artefact that is slower in `runtime` than a float one of as many multiply-accumulates. Times are medians in ms."""

    int8: Row
    floating: Row
    runtime: str
    int8_ms: float
    float_ms: float


def timings(row: Row) -> dict[str, float]:
    """Runtime and precision -> median in ms. A fake-quantized network is left out: it imitates int8 and is not meant to be fast."""
    return {name: values["median"] for name, values in row.latency_ms.items() if "fake" not in name}


def fastest(row: Row) -> tuple[float, str]:
    """The least median in ms, and where it was reached; infinity where nothing was timed."""
    return min(((median, name) for name, median in timings(row).items()), default=(float("inf"), ""))


def shippable(rows: Sequence[Row]) -> list[Row]:
    """The exported files; where there are none, the checkpoints, but no teacher's. Those below half of the best Hmean are of no use."""
    choice = [row for row in rows if row.kind == "export"] or [row for row in rows if row.kind != "teacher"] or list(rows)
    best = max(row.hmean for row in choice)
    return [row for row in choice if 2 * row.hmean >= best]


def recommended(rows: Sequence[Row]) -> Row:
    """Of the shippable rows within `TOLERANCE` of the best Hmean the fastest, and of equally fast ones the smallest."""
    choice = shippable(rows)
    best = max(row.hmean for row in choice)
    return min((row for row in choice if row.hmean >= best - TOLERANCE), key=lambda row: (fastest(row)[0], row.bytes))


def slower_int8(rows: Sequence[Row]) -> list[Slower]:
    """Every int8 file that its float counterpart outruns; an exported counterpart goes before a checkpoint."""
    found = []
    for row in rows:
        for name, median in timings(row).items():
            runtime, precision = name.split(maxsplit=1)
            others = [(other, ms) for other in rows if other.macs == row.macs for ms in float_timings(other, runtime)]
            exported = [(other, ms) for other, ms in others if other.kind == "export"]
            if "int8" in precision and others:
                other, ms = min(exported or others, key=lambda pair: pair[1])
                found += [Slower(row, other, runtime, median, ms)] if ms < median else []
    return found


def float_timings(row: Row, runtime: str) -> list[float]:
    """Medians of a row in one runtime, in ms, but for those of integers."""
    return [median for name, median in timings(row).items() if name.split()[0] == runtime and "int8" not in name]


def scatter(rows: Sequence[Row]) -> tuple[str, float, float] | None:
    """Runtime, least and greatest median in ms of one network timed more than once, where they are furthest apart.

    Rows of as many multiply-accumulates are one network; equal figures are one timing, copied.
    """
    same: dict[tuple[int, str], set[float]] = {}
    for row in rows:
        for name, median in timings(row).items():
            same.setdefault((row.macs, name), set()).add(median)
    spread = [(max(found) / min(found), name, min(found), max(found)) for (_, name), found in same.items() if len(found) > 1]
    return max(spread)[1:] if spread else None


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the Pareto front of (cost, gain) points, by rising cost: no other point costs no more and gains no less."""
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    kept: list[int] = []
    for index in order:
        if not kept or points[index][1] > points[kept[-1]][1]:
            kept.append(index)
    return kept


def same_figures(row: Row, other: Row) -> bool:
    """Whether two rows are one artefact under two names, such as a last epoch that was the best."""
    return (row.key, row.bytes, row.macs, row.precision, row.recall, row.latency_ms) == (
        other.key, other.bytes, other.macs, other.precision, other.recall, other.latency_ms,
    )  # fmt: skip


def distinct(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that are another under a second name."""
    kept: list[Row] = []
    for row in rows:
        if not any(same_figures(row, other) for other in kept):
            kept.append(row)
    return kept


def timing_in(row: Row, runtime: str) -> float | None:
    """A row's least median in one runtime, by whatever precision, in ms; None where it was not timed there."""
    return min((median for name, median in timings(row).items() if name.split()[0] == runtime), default=None)


def runtimes_of(rows: Sequence[Row]) -> list[str]:
    """Every runtime that some row was timed in, in the order met."""
    return list(dict.fromkeys(name.split()[0] for row in rows for name in row.latency_ms))


def damage(data: Mapping[str, Any]) -> tuple[list[float], str]:
    """What each point of a sensitivity costs against the baseline, and its name with its unit: Hmean where all have it, else loss."""
    base, points = data["baseline"], data["points"]
    if points and all(point.get("hmean") is not None for point in points):
        return [100 * (base["hmean"] - point["hmean"]) for point in points], "Hmean lost (points)"
    return [point["loss"] - base["loss"] for point in points], "loss gained"
