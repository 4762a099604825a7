"""The ledger: one row for each artefact, measured from disk, and the tables that a person reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compress.errors import CompressError, suggestion
from compress.evaluation.jackknife import BLOCKS, standard_error
from compress.exporters.inspect import words
from compress.files import checker, first_fault, read_bytes, write_text
from compress.records import Count, Facts, Finite, Scores, Timed
from compress.slower import Timing, is_int8, slower_in_int8
from compress.tasks import TASKS
from compress.tasks.task import Metric

LEDGER = "ledger.jsonl"
TABLES = ("table.md", "table.csv")
# On one line, without what a terminal obeys.
Word = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
# Runtime and precision: `openvino fp32`.
Where = Annotated[str, Field(pattern=r"^\S+ [^\x00-\x1f\x7f]+$")]


class Row(BaseModel):
    """What one artefact costs and keeps.

    stage: the stage's name, with `/last`, `/raw` and the like for its other artefacts. parent: the stage that it started from.
    params: parameters; a checkpoint's include branches that run in training alone, an exported file's do not. macs: at inference, on
    `input`. Both are None of a pipeline, whose parts have rows of their own. bytes: the artefact's weights on disk. task: name of its task.
    scores: metric -> value on `split`, by `settings`, fixed in the recipe. main: name of the metric that counts. delta: its gain against
    the first row, negative for a loss. val_score: its value on validation, what the epoch was chosen by. latency_ms: runtime and precision
    -> median, p90, threads, input, rounds.
    seconds: what the stage took. artefact: path of what was measured, from the experiment's folder.
    data: fingerprint of the images that were measured on.
    left_out: what :func:`compress.evaluation.jackknife.without_each_block` found; delta_error: the standard error of `delta` by it, where
    there are enough images. A file's row also has `integers`, what :func:`compress.exporters.inspect.inspect` found in it.
    """

    model_config = ConfigDict(extra="allow")

    experiment: Word
    stage: Word
    kind: Word
    parent: Word | None
    key: Word
    seed: Count
    task: Word
    params: Count | None
    macs: Count | None
    bytes: Count
    scores: Scores
    main: Word
    delta: Finite
    split: Word
    images: Count
    settings: dict[str, Any]
    runtime: Word
    latency_ms: dict[Where, Timed]
    artefact: Word
    seconds: Finite

    @model_validator(mode="after")
    def check_facts(self) -> Row:
        """What only some rows have is of the right kind where it is there."""
        try:
            checker(Facts).validate_python(self.facts)
        except ValidationError as error:
            raise ValueError(first_fault(error)) from None
        return self

    @property
    def score(self) -> float:
        """The main metric's value."""
        return self.scores[self.main]

    @property
    def facts(self) -> dict[str, Any]:
        """What only some rows have: `epoch`, `val_score`, `cpu`, `integers` and the like."""
        return self.model_extra or {}

    @property
    def metric(self) -> Metric:
        """The main metric."""
        return TASKS[self.task].metric


def against(first: Row, row: Row) -> Row:
    """The row with its gain over the first of its table, and how far that may be chance, where both were measured on the same images."""
    same = (first.task, first.split, first.images, data_of(first)) == (row.task, row.split, row.images, data_of(row))
    error = standard_error(first.facts.get("left_out", ()), row.facts.get("left_out", ())) if same else None
    told = {"delta": TASKS[row.task].gain(first.scores, row.scores), "delta_error": error}
    kept = {name: value for name, value in row.model_dump().items() if name != "delta_error"}
    return Row.model_validate(kept | {name: value for name, value in told.items() if value is not None})


def data_of(row: Row) -> str:
    """The fingerprint of the images that a row was measured on; empty where it is not known."""
    return str(row.facts.get("data", ""))


def write(folder: Path, rows: Sequence[Row]) -> None:
    """The ledger and both tables of one experiment, from all rows there are."""
    write_text(folder / LEDGER, "".join(row.model_dump_json() + "\n" for row in rows))
    for name, text in zip(TABLES, (markdown(rows), comma_separated(rows)), strict=True):
        write_text(folder / name, text)


def read(folder: Path) -> list[Row]:
    """The rows of one experiment.

    Raises CompressError where there is no ledger or it is not one.
    """
    path = folder / LEDGER
    if not path.exists():
        raise CompressError(f"{folder} is not an experiment: it has no {LEDGER}.")
    rows = []
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
        try:
            rows += [Row.model_validate_json(line)] if line.strip() else []
        except ValidationError as error:
            raise CompressError(f"{path}, line {number} is damaged or from another version: {first_fault(error)}.") from None
    for row in rows:
        if row.task not in TASKS:
            raise CompressError(f"{path}: task '{row.task}' of '{row.stage}' is not known{suggestion(row.task, TASKS)}")
        if row.main != TASKS[row.task].main or row.main not in row.scores:
            raise CompressError(f"{path}: '{row.stage}' has no {TASKS[row.task].main}, the main metric of {row.task}; run its stage again.")
    return rows


def together(ledgers: Sequence[Sequence[Row]], folders: Sequence[Path]) -> list[Row]:
    """The rows of several experiments for one table, in which each has the name of its folder: runs of one recipe share its name."""
    if len(folders) < 2:
        return [row for rows in ledgers for row in rows]
    return [
        row.model_copy(update={"experiment": name}) for rows, name in zip(ledgers, distinct_names(folders), strict=True) for row in rows
    ]


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many parts before it as tell it from the others. Raises CompressError for one named twice."""
    paths = [folder.resolve().parts for folder in folders]
    if len(set(paths)) < len(paths):
        raise CompressError("The same experiment is named twice; name each once.")
    depth = 1
    while len({path[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path[-depth:]) for path in paths]


def chosen(rows: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """The rows whose stage fits one of the patterns. Raises CompressError for a pattern that fits none."""
    for pattern in patterns:
        if rows and not any(fnmatch(row.stage, pattern) for row in rows):
            raise CompressError(
                f"--stages {pattern}: {rows[0].experiment} has no such row{suggestion(pattern, [row.stage for row in rows])}"
            )
    return [row for row in rows if any(fnmatch(row.stage, pattern) for pattern in patterns)]


@dataclass(frozen=True)
class Cell:
    """One fact of a row.

    name: its column in `table.csv`. value: as it was measured. heading: its column in the tables that people read, empty for none.
    text: the value as it is read there. note: what is said of it in brackets. metric: the one that it is a value of.
    """

    name: str
    value: Any
    heading: str = ""
    text: str = ""
    note: str = ""
    metric: Metric | None = None


def cells(row: Row) -> tuple[list[Cell], ...]:
    """All facts of a row, in groups that come one after the other in every table; all tables are made of these."""

    def plain(*names: str) -> list[Cell]:
        return [Cell(name, getattr(row, name)) for name in names]

    return (
        [Cell(name, getattr(row, name), name, getattr(row, name)) for name in ("experiment", "stage")],
        plain("kind", "parent", "key", "seed", "task"),
        [
            Cell("params", row.params, "params", "" if row.params is None else f"{row.params / 1e6:.3f} M"),
            Cell("macs", row.macs, "MACs", "" if row.macs is None else f"{row.macs / 1e9:.3f} G"),
            Cell("bytes", row.bytes, "MB", f"{row.bytes / 1e6:.3f}"),
        ],
        score_cells(row),
        [*plain("main"), Cell("delta", row.delta, "delta", delta_text(row)), *error_cells(row), *plain("split", "images")],
        [Cell("settings", json.dumps(row.settings)), *plain("runtime", "artefact", "seconds")],
        latency_cells(row),
    )


def error_of(row: Row) -> float | None:
    """The standard error of a row's delta, where it is known."""
    return row.facts.get("delta_error")


def error_cells(row: Row) -> list[Cell]:
    """That standard error as a figure for programs; nothing where it is not known."""
    return [] if error_of(row) is None else [Cell("delta error", error_of(row))]


def delta_text(row: Row) -> str:
    """A row's gain over the first, with its standard error where it has one: `-1.29 ± 0.62`."""
    return row.metric.moved(row.delta) + error_text(row)


def error_text(row: Row) -> str:
    """` ± 0.62`; nothing where there is no error, or none is known."""
    error = error_of(row)
    return f" ± {row.metric.shown(error)}" if error else ""


def score_cells(row: Row) -> list[Cell]:
    """Every score; the task's metrics are read by people, what else there is, such as the share of each class, by programs alone."""
    metrics = {metric.name: metric for metric in TASKS[row.task].metrics}
    return [
        Cell(f"score {name}", value, metric.heading, metric.shown(value), metric=metric)
        if (metric := metrics.get(name))
        else Cell(f"score {name}", value)
        for name, value in row.scores.items()
    ]


def latency_cells(row: Row) -> list[Cell]:
    """Median and 90th percentile in every runtime; people read the median, with its precision."""
    found = []
    for name, values in row.latency_ms.items():
        runtime, precision = name.split(maxsplit=1)
        found += [
            Cell(f"{name} median ms", values["median"], f"{runtime} ms", f"{values['median']:.1f}", precision),
            Cell(f"{name} p90 ms", values["p90"]),
        ]
    return found


def columns(rows: Sequence[Row], key: Callable[[Cell], str]) -> dict[str, list[list[Cell]]]:
    """Column -> what each row has in it. key: the column of a cell, its name or its heading; a cell without one is left out."""
    grouped = [cells(row) for row in rows]
    names = dict.fromkeys(key(cell) for group in zip(*grouped, strict=True) for part in group for cell in part)
    return {name: [[cell for part in groups for cell in part if key(cell) == name] for groups in grouped] for name in names if name}


def readable(rows: Sequence[Row]) -> dict[str, list[list[Cell]]]:
    """Heading -> what each row has below it, in the tables that people read. What no row has, such as a pipeline's MACs, has no column."""
    found = columns(rows, lambda cell: cell.heading)
    if len({row.experiment for row in rows if row.kind != "teacher"}) < 2:  # a teacher's row stands in its student's table
        found.pop("experiment", None)
    return {heading: column for heading, column in found.items() if any(map(cell_text, column))}


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and text of the table that people read."""
    found = readable(rows)
    return list(found), [[cell_text(column[place]) for column in found.values()] for place in range(len(rows))]


def cell_text(found: Sequence[Cell]) -> str:
    """What a row has in one column: `12.0 (fp32), 9.1 (bf16)`."""
    return ", ".join(f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in found)


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown with its caption below."""
    head, body = table(rows)
    marks = ["---" if name in ("experiment", "stage") else "---:" for name in head]
    lines = ["| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in (head, marks, *body)]
    return "\n".join(lines) + "\n\n" + caption(rows).replace("\n", "  \n") + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """Every figure at full precision; a column for each metric, and for each runtime's median and 90th percentile."""
    found = columns(rows, lambda cell: cell.name)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(harmless(name) for name in found)
    writer.writerows([harmless(column[place][0].value) if column[place] else "" for column in found.values()] for place in range(len(rows)))
    return out.getvalue()


def harmless(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula, with an apostrophe before it; a number, negative or not, as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def caption(rows: Sequence[Row]) -> str:
    """What the figures were measured on and by: one line for each way that occurs."""
    lines = dict.fromkeys(f"{conditions(row)}; seed {row.seed}" for row in rows)
    directions = dict.fromkeys(f"delta: how much less {row.metric.label} is than in the first row" for row in rows if falls(row))
    chance = [f"±: standard error of delta, by leaving out {BLOCKS} blocks of images in turn"] if any(map(error_of, rows)) else []
    timed = dict.fromkeys(f"latency: {timed_on(values)}" for row in rows for values in row.latency_ms.values())
    parts = [f"{row.stage}: {shares_text(values['shares'])}" for row in rows for values in row.latency_ms.values() if "shares" in values]
    hosts = dict.fromkeys(str(row.facts.get("cpu", "")) for row in rows)
    integers = [f"{row.stage}: {words(row.facts['integers'])}" for row in rows if is_int8_file(row)]
    kept = [score_control_text(row) for row in rows if "score_control" in row.facts]
    slow = [
        f"{case.int8.stage} is slower in int8 than {case.floating.stage} in {case.precision} in {case.runtime}: "
        f"{case.int8_ms:.1f} ms against {case.float_ms:.1f} ms"
        for case in slower(rows)
    ]
    return "\n".join([*lines, *directions, *chance, *timed, *(f"on {host}" for host in hosts if host), *parts, *integers, *kept, *slow])


def timed_on(values: Mapping[str, Any]) -> str:
    """What a latency was measured on."""
    threads = f"{values['threads']} thread(s)"
    if not values["input"]:
        return f"median of {values['rounds']} images, from pixels to answer, {threads}"
    return f"median of {values['rounds']} rounds, input {'x'.join(map(str, values['input']))}, {threads}"


def shares_text(shares: Mapping[str, float]) -> str:
    """What each part of a pipeline takes of its time."""
    return ", ".join(f"{part} {100 * share:.0f} %" for part, share in shares.items()) + " of the time"


def score_control_text(row: Row) -> str:
    """How many layers of a quantized model stayed in float, and what that kept of the main metric."""
    found, metric = row.facts["score_control"], row.metric
    drop, score, whole = metric.moved(found["max_drop"]).lstrip("+"), metric.shown(found["score"]), metric.shown(found["float_score"])
    kept = f"{row.stage}: {len(found['kept_float'])} layer(s) in float"
    return f"{kept}, for a loss of {metric.label} of at most {drop} on validation: {score} of {whole}"


def conditions(row: Row) -> str:
    """What a row's score was measured on, and by which settings."""
    settings = "".join(f", {name} {value}" for name, value in row.settings.items())
    return f"{row.metric.label} on {row.images} {row.split} images{settings}"


def falls(row: Row) -> bool:
    """Whether less is better of a row's main metric."""
    return not row.metric.higher_is_better


def is_int8_file(row: Row) -> bool:
    """Whether a row is of an int8 file that was looked into."""
    return is_int8(row.runtime) and "integers" in row.facts


class Slower(NamedTuple):
    """An int8 artefact that is slower in `runtime` than a float one. precision: of the float one. Times are medians in ms."""

    int8: Row
    floating: Row
    runtime: str
    precision: str
    int8_ms: float
    float_ms: float


def slower(rows: Sequence[Row]) -> list[Slower]:
    """Every int8 artefact that is slower than a float one of its experiment.

    They are alike if they have as many multiply-accumulates and were timed in one runtime by as many threads on an equal input.
    """
    timings = [timing(place, row, *name.split(maxsplit=1)) for place, row in enumerate(rows) for name in row.latency_ms]
    return [
        Slower(rows[mine.place], rows[other.place], mine.runtime, other.precision, mine.time, other.time)
        for mine, other in slower_in_int8(timings)
    ]


def timing(place: int, row: Row, runtime: str, precision: str) -> Timing:
    """One latency of the row at a place of the table."""
    values = row.latency_ms[f"{runtime} {precision}"]
    network = (row.experiment, row.macs, values["threads"], tuple(values["input"]))
    return Timing(place, network, runtime, precision, values["median"], row.kind in ("export", "assemble"))
