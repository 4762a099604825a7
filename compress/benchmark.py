"""`compress benchmark`: latency of files and checkpoints in one run, in turns, so that they can be compared.

A figure from one minute does not compare with one from the next on a machine that does other work too. Within one round everything
meets the same load, so what is compared is the ratio of each call to the first artefact's call of the same round.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress import progress
from compress.data.images import read_image
from compress.description import understood
from compress.errors import CompressError, suggestion
from compress.exporters.inspect import inspect
from compress.image_timing import image_timings
from compress.models.contract import Input
from compress.pipeline import is_pipeline
from compress.predict import expanded
from compress.predictor import open_predictor
from compress.runtimes import FILES, Runtime, from_network, open_file, runtime_of
from compress.runtimes.processor import processor
from compress.runtimes.runtime import available_threads, figures, timed
from compress.slower import Timing, is_int8, slower_in_int8

CHECKPOINT = ("torch", "torch.compile")
# Rounds scatter too much where the middle half of the ratios to the first artefact is wider than this share of their median.
SCATTER = 0.2
WARMUP = 5
ROUNDS = 20


@dataclass(frozen=True)
class Entry:
    """One line of the benchmark: what is run, and in what. precision: of the float parts, None for 32 bit."""

    path: Path
    runtime: str
    precision: str | None

    def __str__(self) -> str:
        return f"{self.path} in {self.runtime}{':' + self.precision if self.precision else ''}"


def benchmark(
    paths: Sequence[Path],
    *,
    size: str | None = None,
    threads: Sequence[str] = ("1",),
    rounds: int | None = None,
    runtimes: Sequence[str] = (),
    images: Sequence[Path] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Time exported files, checkpoint folders and pipelines on one image of noise of `size` (HEIGHTxWIDTH, in pixels), or on `images`.

    images: files and folders; all artefacts are then timed on each, in turn, from pixels to answer, as pipelines always are.
    size: by default a usual input of the first artefact's network. rounds: timed calls of each, in turn; 20 unless said.
    threads: numbers, each of which is a run of its own, pinned to as many cores where the system can. runtimes: NAME or
    NAME:PRECISION; every artefact is timed in each that fits it, its own alone where none are given.
    Returns `cpu`, `input`, `rounds`, `remarks` (sentences), and `results`, for each thread count and artefact: `artefact`, `runtime`,
    `precision`, `threads`, `median` and `p90` in milliseconds, `ratio` (median over the rounds of the time by that of the first
    artefact), `ratio_quartiles`, and `integers` as in :func:`compress.exporters.inspect.inspect`.
    Raises CompressError, before anything is timed, for what cannot be run as asked.
    """
    counts = thread_counts(threads)
    if images:
        if size or runtimes or rounds:
            raise CompressError("--image times what a user waits for, once an image; leave out --input, --rounds and --runtime beside it.")
        return on_images(paths, expanded_images(images), counts, quiet)
    if pipelines := [path for path in paths if is_pipeline(path)]:
        raise CompressError(f"{pipelines[0]} is a pipeline, whose time depends on what is in an image; name some with --image.")
    wanted = image_size(size) if size else None
    rounds = ROUNDS if rounds is None else rounds
    if rounds < 3:
        raise CompressError(f"--rounds {rounds} is too few for a median that means something; give at least 3.")
    entries = pairs(paths, runtimes)
    shape = (1, 3, *(wanted or input_of(entries[0]).example))
    integers = [inspect(entry.path, entry.runtime) for entry in entries]
    results = [
        {**row, "integers": found}
        for count in counts
        for row, found in zip(run(entries, shape, count, rounds, quiet), integers, strict=True)
    ]
    return {"cpu": processor(), "input": list(shape), "rounds": rounds, "results": results, "remarks": remarks(results)}


def image_size(text: str) -> tuple[int, int]:
    """`736x1280` -> (736, 1280)."""
    found = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", text.strip())
    if not found:
        raise CompressError(f"--input {text} is no size; write height and width in pixels, such as 736x1280.")
    return int(found[1]), int(found[2])


def thread_counts(texts: Sequence[str]) -> list[int]:
    """`["1,2"]` or `["1", "2"]` -> [1, 2], each at least 1 and at most the cores there are."""
    cores = available_threads(None)
    counts = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        if not part.isdecimal() or int(part) == 0:
            raise CompressError(f"--threads {part} is no number of threads; write whole numbers from 1 on, such as 1,2.")
        if int(part) > cores:
            raise CompressError(f"--threads {part} is more than the {cores} core(s) that this process may use; give at most {cores}.")
        counts.append(int(part))
    return list(dict.fromkeys(counts))


def pairs(paths: Sequence[Path], runtimes: Sequence[str]) -> list[Entry]:
    """Every artefact with every runtime asked for that fits it; one that fits nothing, or is fitted by nothing, is refused."""
    fitting = {path: fitting_runtimes(path) for path in paths}
    wanted = [part.strip().partition(":") for text in runtimes for part in text.split(",")]
    known = {name for names in (*FILES.values(), CHECKPOINT) for name in names}
    for name, _, _ in wanted:
        if name not in known:
            raise CompressError(f"--runtime {name} is not known{suggestion(name, known)}")
        if not any(name in names for names in fitting.values()):
            raise CompressError(f"--runtime {name} runs none of the artefacts given; {', '.join(map(str, paths))} run in others.")
    entries = []
    for path, names in fitting.items():
        chosen = [(name, precision or None) for name, _, precision in wanted if name in names] if wanted else [(names[0], None)]
        if not chosen:
            raise CompressError(f"{path} runs in none of the runtimes asked for; it runs in {', '.join(names)}.")
        entries += [Entry(path, *pair) for pair in chosen]
    return entries


def fitting_runtimes(path: Path) -> tuple[str, ...]:
    """The runtimes of a checkpoint folder or an exported file, its own first."""
    if path.is_dir():
        from compress.checkpoint import read_description

        read_description(path)
        return CHECKPOINT
    runtime_of(path)
    return FILES[path.suffix]


def open_entry(entry: Entry, threads: int) -> Runtime:
    """Ready to run; its description is the artefact's."""
    if not entry.path.is_dir():
        return open_file(entry.path, threads, entry.precision, entry.runtime)
    if entry.precision not in (None, "f32"):
        raise CompressError(f"A checkpoint is timed in f32; leave '{entry.precision}' out of --runtime {entry.runtime}.")
    from compress.checkpoint import load

    model = load(entry.path)
    return replace(from_network(model.network, threads, compiled=entry.runtime == "torch.compile"), description=model.description())


def input_of(entry: Entry) -> Input:
    """What images the network of an artefact takes."""
    if entry.path.is_dir():
        from compress.checkpoint import read_description

        return wanted_input(entry, read_description(entry.path))
    return wanted_input(entry, open_file(entry.path, 1, entry.precision, entry.runtime).description)


def wanted_input(entry: Entry, description: dict[str, Any]) -> Input:
    """What images the network of an artefact's description takes."""
    return understood(description, entry.path).algorithm.input


def check_size(entry: Entry, runtime: Runtime, shape: Sequence[int]) -> None:
    """Refuse a size that the model does not take."""
    multiple, given = wanted_input(entry, runtime.description).multiple, tuple(shape[2:])
    nearest = tuple(max(1, round(side / step)) * step for side, step in zip(given, multiple, strict=True))
    if nearest != given:
        told, of, near = (f"{height}x{width}" for height, width in (given, multiple, nearest))
        raise CompressError(f"--input {told}: {entry.path} takes multiples of {of}, such as {near}.")


def run(entries: Sequence[Entry], shape: Sequence[int], threads: int, rounds: int, quiet: bool) -> list[dict[str, Any]]:
    """Results at one number of threads."""
    with pinned(threads):
        opened = [open_entry(entry, threads) for entry in entries]
        for entry, runtime in zip(entries, opened, strict=True):
            check_size(entry, runtime, shape)
        with progress.bar(f"{threads} thread(s)", len(opened) * (rounds + WARMUP), quiet=quiet) as bar:
            seconds = timed(opened, shape, rounds, WARMUP, bar.advance)
    return [
        {
            "artefact": str(entry.path),
            "runtime": runtime.name,
            "precision": runtime.precision,
            **figures(runtime, shape, times),
            **ratio,
        }
        for entry, runtime, times, ratio in zip(entries, opened, seconds, ratios(seconds), strict=True)
    ]


def ratios(seconds: np.ndarray) -> list[dict[str, Any]]:
    """Of each row of (artefacts, rounds) seconds, `ratio`, the median of what it is of the first row, and `ratio_quartiles`."""
    quartiles = np.quantile(seconds / seconds[0], (0.25, 0.5, 0.75), axis=1).T.tolist()
    return [{"ratio": middle, "ratio_quartiles": [low, high]} for low, middle, high in quartiles]


def expanded_images(inputs: Sequence[Path]) -> list[Path]:
    """The images that are meant. Raises CompressError for a name that leads to none."""
    given = expanded(inputs)
    if problem := next((problem for problem in given.values() if problem), None):
        raise CompressError(problem)
    return list(given)


def on_images(paths: Sequence[Path], images: Sequence[Path], counts: Sequence[int], quiet: bool) -> dict[str, Any]:
    """:func:`benchmark` on real images, which are read one by one and not timed while they are."""
    results = []
    for threads in counts:
        with pinned(threads):
            predictors = [open_predictor(path, threads=threads) for path in paths]
            with progress.bar(f"{threads} thread(s)", len(paths) * len(images), quiet=quiet) as bar:
                timings = image_timings(predictors, map(read_image, images), bar.advance)
        compared = ratios(np.array([timing.seconds for timing in timings]))
        results += [
            {
                "artefact": str(path),
                "runtime": predictor.runtime,
                "precision": predictor.precision,
                **timing.figures(),
                "threads": threads,
                **ratio,
                "integers": None,
            }
            for path, predictor, timing, ratio in zip(paths, predictors, timings, compared, strict=True)
        ]
    return {"cpu": processor(), "input": [], "rounds": len(images), "results": results, "remarks": remarks(results)}


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """This process, and the threads that it starts meanwhile, on as many cores as threads, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def remarks(results: Sequence[dict[str, Any]]) -> list[str]:
    """What the figures say: rounds that scatter, int8 slower than fp32, and the fastest."""
    sentences = []
    for count in dict.fromkeys(result["threads"] for result in results):
        rows = [result for result in results if result["threads"] == count]
        sentences += [scatter for row in rows if (scatter := scattered(row))]
        sentences += int8_remarks(rows)
        sentences.append(fastest(rows))
    return sentences


def scattered(row: dict[str, Any]) -> str | None:
    """A warning where the middle half of the ratios is wide."""
    low, high = row["ratio_quartiles"]
    if high - low <= SCATTER * row["ratio"]:
        return None
    what = f"half of the ratios lie outside of {low:.2f} to {high:.2f}"
    more = "with more --rounds" if row["input"] else "on more images"
    return f"{name_of(row)}: the rounds scatter too much to compare ({what}); run again on a quieter machine, or {more}."


def int8_remarks(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each int8 artefact that is slower than its float one."""
    timings = [Timing(place, network(rows, place), row["runtime"], row["precision"], row["ratio"]) for place, row in enumerate(rows)]
    told = []
    for mine, other in slower_in_int8(timings):
        row, sibling = rows[mine.place], rows[other.place]
        compared = f"{row['median']:.1f} ms against {sibling['median']:.1f} ms with {row['threads']} thread(s)"
        told.append(f"{name_of(row)} is slower than the {other.precision} {sibling['artefact']}: {compared}.")
    return told


def network(rows: Sequence[dict[str, Any]], place: int) -> int:
    """Which float artefact of its runtime one belongs to: the nearest before it or itself, counted from 1; before the first, the first.

    Nothing in an int8 file tells what it was quantized from; the order in which artefacts are named does.
    """
    row = rows[place]
    floats = {other["artefact"] for other in rows[: place + 1] if other["runtime"] == row["runtime"] and not is_int8(other["precision"])}
    return max(1, len(floats))


def fastest(rows: Sequence[dict[str, Any]]) -> str:
    """The recommendation; those whose quartiles of the ratio reach into the fastest's are named with it."""
    best = min(rows, key=lambda row: row["ratio"])
    close = [row for row in rows if row is not best and row["ratio_quartiles"][0] <= best["ratio_quartiles"][1]]
    also = f"; too close to it to tell apart: {'; '.join(map(name_of, close))}" if close else ""
    return f"Fastest with {best['threads']} thread(s): {name_of(best)}, {best['median']:.1f} ms{also}."


def name_of(row: dict[str, Any]) -> str:
    """An artefact, its runtime and precision."""
    return f"{row['artefact']} in {row['runtime']} ({row['precision']})"
