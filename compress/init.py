"""`compress init`: a short recipe for somebody's own data, written after a look at them."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from compress.checkpoint import DESCRIPTION, QUANTIZATION, fresh, load, read_description
from compress.data.files import MENDED
from compress.data.formats import FORMATS, DataConfig, from_options, open_split
from compress.description import Described, understood
from compress.errors import CompressError
from compress.files import write_text
from compress.outputs import check_file
from compress.packaged import float_parent
from compress.pruning.budget import cost_range
from compress.pruning.settings import Pruning
from compress.recipe import load as load_recipe
from compress.runtimes.runtime import FROM_OUTSIDE, available_threads
from compress.runtimes.settings import Latency
from compress.stages.load import PACKAGED as SHIPPED
from compress.tasks import TASKS

PACKAGED, SCRATCH = "packaged", "scratch"
TRAINED = [name for name, task in TASKS.items() if task.begun_with]
# Views of training images after which such a network has learned about what it will, started from weights and from nothing.
TUNED_VIEWS, FRESH_VIEWS = 2_000, 40_000
FEWEST, MOST = 4, 400  # epochs
SETTLED = 0.7  # of the steps, after which a fresh network's norms are held
EVALUATIONS = 20  # of a stage, at most: few images are gone through often
LARGEST_CROP = 480  # pixels: nearly twice as many views a minute as with 640
PRUNED = {"allocation": "global", "criterion": "taylor", "round_to": 8, "batch": 8}
BUDGET = re.compile(r"(?P<ms>\d+(?:\.\d+)?)\s*ms@(?P<height>\d+)x(?P<width>\d+)")
RUNTIME = re.compile(r"(?P<runtime>onnxruntime|openvino)(?::(?P<precision>fp32|int8))?")


@dataclass(frozen=True)
class Budget:
    """What a call may take: milliseconds for an input of height x width pixels, in a runtime, a precision and a number of threads.

    ms and size are None for no limit.
    """

    ms: float | None
    size: tuple[int, int] | None
    runtime: str
    precision: str
    threads: int

    def target(self) -> dict[str, str]:
        """As a prune stage has it."""
        return {"latency": f"{self.ms:g}ms", "runtime": self.runtime, "precision": self.precision}

    def told(self) -> str:
        """In words, without the milliseconds."""
        height, width = self.size or (0, 0)
        return f"{height}x{width} in {self.runtime} {self.precision} on {self.threads} thread(s)"


def init(
    data: Path, out: Path, *, task: str | None, start: str, latency: str | None, runtime: str, threads: int | None = None
) -> list[str]:
    """Write a recipe to `out` and tell in a few lines what was found and what comes next.

    data: a folder of any format that the workbench reads. task: a name of `compress.tasks`, needed where the data could be of several.
    start: `packaged`, `scratch`, or a checkpoint folder. latency: such as `10ms@640x640`; calls of the model that training starts from are
    timed, as it is and pruned as far as a prune stage goes. runtime: such as `openvino:int8`. threads: of the runtime; all there are,
    unless said.
    Raises CompressError for data of no known format, for a start of another task, for a latency that pruning does not reach, and where
    `out` is somebody's file.
    """
    if os.path.lexists(out):
        raise CompressError(f"--out: {out} is there already; move it away, or name another one.")
    check_file(out)
    budget = budget_of(latency, runtime, threads)
    found = recognised(data, task)
    begun = started(found.task, start)
    images = {split: len(open_split(found, split, 0)) for split in found.splits()}
    timed = reach(budget, found.task, begun, start) if budget.ms is not None else None
    text = "\n".join(written(found, images, begun, start, budget, prune=timed is not None and not timed.met)) + "\n"
    write_text(out, text)
    load_recipe(out)
    told = ", ".join(f"{count} {split}" for split, count in images.items())
    words = shlex.quote(str(out))
    return [
        f"{data}: {told} images, format {found.format}, for {found.task}.",
        *([timed.told] if timed else []),
        f"{out} is written. Look through it, then:",
        f"  compress plan {words}     # how long it takes here",
        f"  compress run {words}      # trains, writes the files and the table",
    ]


class Reach(NamedTuple):
    """met: whether the model keeps a latency as it is. told: what was measured, in a sentence."""

    met: bool
    told: str


def reach(budget: Budget, task: str, begun: Described | None, start: str) -> Reach:
    """How the budget lies to the model that training starts from. Raises CompressError for one that pruning does not reach."""
    assert budget.ms is not None, "there is a limit"
    assert budget.size is not None, "which is for a size"
    model = load(start_folder(task, start)) if begun else fresh(dict(TASKS[task].begun_with), TASKS[task].evaluate())
    stage = Pruning.model_validate({**PRUNED, "target": budget.target()})
    whole, pruned = cost_range(stage, model, Latency(input=(1, 3, *budget.size), threads=budget.threads))
    told = f"A call at {budget.told()} takes {whole.told} here as the model is, {pruned.told} when as much is pruned as can be"
    if pruned.value > budget.ms:
        raise CompressError(f"--latency: {budget.ms:g}ms cannot be reached. {told}; give it more, or a smaller image.")
    return Reach(whole.value <= budget.ms, f"{told}.")


def budget_of(latency: str | None, runtime: str, threads: int | None = None) -> Budget:
    """The budget that the options say. Raises CompressError for what cannot be read."""
    where = RUNTIME.fullmatch(runtime)
    if where is None:
        raise CompressError(f"--runtime: '{runtime}' is none; give onnxruntime or openvino, with :int8 or :fp32 behind it.")
    name, precision = where["runtime"], where["precision"] or "int8"
    if latency is None:
        return Budget(None, None, name, precision, available_threads(threads))
    found = BUDGET.fullmatch(latency)
    if found is None or not float(found["ms"]):
        raise CompressError(f"--latency: '{latency}' is no budget; give milliseconds and the size of an image, such as 10ms@640x640.")
    return Budget(float(found["ms"]), (int(found["height"]), int(found["width"])), name, precision, available_threads(threads))


def recognised(root: Path, task: str | None) -> DataConfig:
    """The format of the data in a folder: the only one that reads its training images as a whole.

    Raises CompressError where none does, saying what the nearest one found, and where formats of several tasks do.
    """
    if task is not None and task not in TRAINED:
        raise CompressError(f"--task: '{task}' is none; give one of {', '.join(TRAINED)}.")
    if not root.is_dir():
        raise CompressError(f"--data: there is no folder {root}; give the one that holds your images and their labels.")
    fitting, faults = [], []
    for config in candidates(root, task):
        try:
            open_split(config, "train", 0, quiet=True)
        except CompressError as error:
            told = str(error).replace(
                MENDED, f" Repair them; `compress data check {shlex.quote(str(root))} --format {config.format}` names all."
            )
            faults.append((usable(config), f"As {config.format}: {told}"))
        else:
            fitting.append(config)
    # A format that says more of an image could be read as one that says less, its words as one text: those go first.
    fitting = [config for config in fitting if config.task == TRAINED[0]] or fitting
    tasks = sorted({config.task for config in fitting})
    if len(tasks) > 1:
        raise CompressError(f"--data: {root} can be read for {' and for '.join(tasks)}; say which with --task.")
    if fitting:
        return fitting[0]
    if faults:
        raise CompressError(f"--data: {root} cannot be read. {max(faults, key=itemgetter(0))[1]}")
    names = ", ".join(name for name, kind in FORMATS.items() if "root" in kind.model_fields and task in (None, kind.task))
    raise CompressError(f"--data: {root} is of no known format ({names}); docs/data.md shows what their folders look like.")


def usable(config: DataConfig) -> int:
    """How many training images of damaged data can be used."""
    try:
        with unheard():
            return len(open_split(config.model_copy(update={"damaged": "skip"}), "train", 0, quiet=True))
    except CompressError:
        return 0


@contextmanager
def unheard() -> Iterator[None]:
    """No warnings of the workbench: that data are not of a format that is tried out is no news."""
    logger = logging.getLogger("compress")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def candidates(root: Path, task: str | None) -> Iterator[DataConfig]:
    """Formats whose folder looks as `root` does and has a training part."""
    for name, kind in FORMATS.items():
        if "root" not in kind.model_fields or task not in (None, kind.task):
            continue
        try:
            config = from_options(name, root)
            if "train" in config.splits():
                yield config
        except CompressError:
            continue


def start_folder(task: str, start: str) -> Path:
    """The checkpoint folder that `packaged` or a path names."""
    return float_parent(task) if start == PACKAGED else Path(start)


def started(task: str, start: str) -> Described | None:
    """The model that training starts from; None for fresh weights. Raises CompressError for one of another task."""
    if start == SCRATCH:
        return None
    folder = start_folder(task, start)
    if not (folder / DESCRIPTION).is_file():
        told = f"--from: {folder} is no checkpoint folder; give one, or `{PACKAGED}`, or `{SCRATCH}`."
        raise CompressError(f"{told}{FROM_OUTSIDE}" if folder.is_file() else told)
    if (folder / QUANTIZATION).is_file():
        raise CompressError(f"--from: {folder} holds a quantized model; give the float one that it was made from.")
    found = understood(read_description(folder), folder / DESCRIPTION)
    if found.algorithm.task != task:
        raise CompressError(
            f"--from: {folder} is a model for {found.algorithm.task}, and the data are for {task}; give another, or --task."
        )
    return found


def written(data: DataConfig, images: dict[str, int], begun: Described | None, start: str, budget: Budget, *, prune: bool) -> Iterator[str]:
    """The lines of the recipe. prune: whether the model is to be made smaller."""
    root = data.model_dump(mode="json")["root"]
    config = begun.config if begun else dict(TASKS[data.task].begun_with)
    yield f"# Made by `compress init`, from {images['train']} training images in {root}."
    yield "seed: 0"
    yield f"model: {flow(config)}"
    yield f"data: {flow({'format': data.format, 'root': root})}"
    if section := shown(data.task, begun, budget):
        yield f"evaluate: {flow(section)}"
    size = budget.size or TASKS[data.task].crop
    yield f"latency: {flow({'input': [1, 3, *size], 'threads': budget.threads, 'runtimes': [budget.runtime]})}"
    yield ""
    yield "stages:"
    if begun:
        yield f"  - load:     {{name: start, checkpoint: {flow(f'{SHIPPED}{data.task}' if start == PACKAGED else start)}}}"
    yield f"  - train:    {{name: trained, {schedule(data.task, images['train'], tuned=begun is not None, lr=1e-3 if begun else 2e-3)}}}"
    if prune:
        yield f"  # As many channels as {budget.ms:g} ms allow, by files measured here; then what that cost is learned back."
        keys = {**PRUNED, "crop": crop(data.task)}
        yield f"  - prune:    {{name: pruned, target: {flow(budget.target())}, {flow(keys)[1:-1]}}}"
        yield f"  - distill:  {{name: distilled, teacher: trained, {schedule(data.task, images['train'], tuned=True, lr=2e-3)}}}"
    yield f"  - export:   {{name: files, formats: {format_of(budget)}}}"
    if budget.precision == "int8":
        yield f"  - quantize: {{name: int8, from: {'distilled' if prune else 'trained'}, mode: ptq}}"
        yield f"  - export:   {{name: files_int8, formats: {format_of(budget)}}}"


def crop(task: str) -> int | list[int]:
    """The `crop` of a stage: what is usual for the task, but no larger than pays."""
    height, width = (min(side, LARGEST_CROP) for side in TASKS[task].crop)
    return height if height == width else [height, width]


def schedule(task: str, images: int, *, tuned: bool, lr: float) -> str:
    """The keys of a training on so many images. tuned: whether it starts from weights that are good already.

    The norms' statistics of such are those of more images than these, so they are kept. Fresh ones are held when most of the steps are
    done: what is learnt last then fits those that the model is used with.
    """
    epochs = min(MOST, max(FEWEST, round((TUNED_VIEWS if tuned else FRESH_VIEWS) / max(1, images))))
    keys = {
        "epochs": epochs,
        "batch": 8 if tuned else 16,
        "crop": crop(task),
        "lr": lr,
        "decay": "cosine",
        "warmup": round(0.05 * epochs, 1),
        "ema": 0.98,
        **({"evaluate_every": -(-epochs // EVALUATIONS)} if epochs > EVALUATIONS else {}),
        "freeze_norms": 0 if tuned else SETTLED,
    }
    return flow(keys)[1:-1]


def shown(task: str, begun: Described | None, budget: Budget) -> dict[str, Any]:
    """The `evaluate` section: the model's own, at the size that the budget is about."""
    section = begun.evaluate.model_dump(mode="json") if begun else {}
    return {**section, **(TASKS[task].at_size(*budget.size) if budget.size else {})}


def format_of(budget: Budget) -> str:
    """The format of files that the runtime reads, as a list."""
    return "[onnx]" if budget.runtime == "onnxruntime" else "[openvino]"


def flow(value: Any) -> str:
    """A value as YAML in one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
