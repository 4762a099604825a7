"""The ledger: one row for each artefact, measured from disk, and the tables that a person reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from compress.errors import CompressError, suggestion
from compress.exporters.inspect import words
from compress.files import write_text

LEDGER = "ledger.jsonl"


class Row(BaseModel):
    """What one artefact costs and keeps.

    stage: the stage's name, with `/last`, `/raw` and the like for its other artefacts. parent: the stage that it started from.
    params: parameters; a checkpoint's include branches that run in training alone, an exported file's do not. macs: at inference, on
    `input`. bytes: the artefact's weights on disk. task: name of its task. scores: metric -> value on `split`, by `settings`, fixed in the
    recipe. main: name of the metric that counts. delta: its gain against the first row, negative for a loss. val_score: its value on
    validation, what the epoch was chosen by. latency_ms: runtime and precision -> median, p90, threads, input, rounds.
    seconds: what the stage took. artefact: path of what was measured, from the experiment's folder.
    A file's row also has `integers`, what :func:`compress.exporters.inspect.inspect` found in it.
    """

    model_config = ConfigDict(extra="allow")

    experiment: str
    stage: str
    kind: str
    parent: str | None
    key: str
    seed: int
    task: str
    params: int
    macs: int
    bytes: int
    scores: dict[str, float]
    main: str
    delta: float
    split: str
    images: int
    settings: dict[str, Any]
    runtime: str
    latency_ms: dict[str, dict[str, Any]]
    artefact: str
    seconds: float

    @property
    def score(self) -> float:
        """The main metric's value."""
        return self.scores[self.main]


def write(folder: Path, rows: Sequence[Row]) -> None:
    """The ledger and both tables of one experiment, from all rows there are."""
    write_text(folder / LEDGER, "".join(row.model_dump_json() + "\n" for row in rows))
    write_text(folder / "table.md", markdown(rows))
    write_text(folder / "table.csv", comma_separated(rows))


def read(folder: Path) -> list[Row]:
    """The rows of one experiment.

    Raises CompressError where there is no ledger or it is not one.
    """
    path = folder / LEDGER
    if not path.exists():
        raise CompressError(f"{folder} is not an experiment: it has no {LEDGER}.")
    try:
        return [Row.model_validate_json(line) for line in path.read_text().splitlines() if line.strip()]
    except (ValidationError, ValueError) as error:
        raise CompressError(f"{path} is damaged or from another version: {str(error).splitlines()[0]}") from None


def chosen(rows: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """The rows whose stage fits one of the patterns. Raises CompressError for a pattern that fits none."""
    for pattern in patterns:
        if rows and not any(fnmatch(row.stage, pattern) for row in rows):
            raise CompressError(
                f"--stages {pattern}: {rows[0].experiment} has no such row{suggestion(pattern, [row.stage for row in rows])}"
            )
    return [row for row in rows if any(fnmatch(row.stage, pattern) for pattern in patterns)]


def latency_columns(rows: Sequence[Row]) -> list[str]:
    """Every runtime and precision that some row was timed in, in the order met."""
    return list(dict.fromkeys(name for row in rows for name in row.latency_ms))


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and text of the table that people read."""
    runtimes = list(dict.fromkeys(name.split()[0] for name in latency_columns(rows)))
    several = len({row.experiment for row in rows if row.kind != "teacher"}) > 1  # a teacher's row stands in its student's table
    head = [
        *(["experiment"] if several else []),
        "stage",
        "params",
        "MACs",
        "MB",
        "P %",
        "R %",
        "Hmean %",
        "delta",
        *(f"{name} ms" for name in runtimes),
    ]
    body = [
        [
            *([row.experiment] if several else []),
            row.stage,
            f"{row.params / 1e6:.3f} M",
            f"{row.macs / 1e9:.3f} G",
            f"{row.bytes / 1e6:.3f}",
            f"{100 * row.precision:.2f}",
            f"{100 * row.recall:.2f}",
            f"{100 * row.hmean:.2f}",
            f"{100 * row.hmean_delta:+.2f}",
            *(latency_cell(row, name) for name in runtimes),
        ]
        for row in rows
    ]
    return head, body


def latency_cell(row: Row, runtime: str) -> str:
    """Median latencies in one runtime, with the precision: `4.1 (fp32)`."""
    found = [(name.split(maxsplit=1)[1], values["median"]) for name, values in row.latency_ms.items() if name.split()[0] == runtime]
    return ", ".join(f"{median:.1f} ({precision})" for precision, median in found)


def caption(rows: Sequence[Row]) -> str:
    """What the numbers were measured on and by: one line for each way that occurs."""
    lines = dict.fromkeys(
        f"Hmean on {row.images} {row.split} pictures, "
        + ", ".join(f"{name} {value}" for name, value in row.thresholds.items())
        + f"; seed {row.seed}"
        for row in rows
    )
    timed = dict.fromkeys(
        f"latency: median of {values['rounds']} rounds, input {'x'.join(map(str, values['input']))}, {values['threads']} thread(s)"
        for row in rows
        for values in row.latency_ms.values()
    )
    integers = [f"{row.stage}: {words(row.model_extra['integers'])}" for row in rows if is_int8_file(row)]
    hosts = dict.fromkeys(str(row.model_extra.get("cpu", "")) for row in rows)
    return "\n".join([*lines, *timed, *(f"on {host}" for host in hosts if host), *integers, *slower_in_int8(rows)])


def is_int8_file(row: Row) -> bool:
    """Whether a row is of an int8 file that was looked into."""
    return row.runtime.endswith(" int8") and "integers" in row.model_extra


def slower_in_int8(rows: Sequence[Row]) -> list[str]:
    """A sentence for every int8 file that takes longer than the last fp32 file before it of the same model, format and measurement."""
    told = []
    parents = {(row.experiment, row.stage): row.parent for row in rows}
    for place, row in enumerate(rows):
        timed = row.latency_ms.get(row.runtime)
        if not timed or not is_int8_file(row):
            continue
        name = row.runtime.removesuffix(" int8")
        quantized_from = parents.get((row.experiment, row.parent))
        for other in reversed(rows[:place]):
            if quantized_from not in (None, other.parent):
                continue
            sibling = other.latency_ms.get(f"{name} fp32") if other.kind == "export" and other.experiment == row.experiment else None
            if sibling and all(sibling[key] == timed[key] for key in ("threads", "input")):
                if timed["median"] > sibling["median"]:
                    figures = f"{timed['median']:.1f} ms against {sibling['median']:.1f} ms"
                    told.append(f"{row.stage} is slower in int8 than {other.stage} in fp32 in {name}: {figures}")
                break
    return told


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown with its caption below."""
    head, body = cells(rows)
    lines = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * 1 + ["---:"] * (len(head) - 1), *body)]
    return "\n".join(lines) + "\n\n" + caption(rows).replace("\n", "  \n") + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """Every number at full precision, a column for each runtime's median and 90th percentile."""
    timed = latency_columns(rows)
    plain = [name for name in Row.model_fields if name not in ("latency_ms", "thresholds")]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*plain, "thresholds", *(f"{name} {figure} ms" for name in timed for figure in ("median", "p90"))])
    for row in rows:
        values = row.model_dump()
        times = [row.latency_ms.get(name, {}).get(figure, "") for name in timed for figure in ("median", "p90")]
        writer.writerow([*(values[name] for name in plain), json.dumps(row.thresholds), *times])
    return out.getvalue()
