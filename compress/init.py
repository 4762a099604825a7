"""`compress init`: a short recipe for somebody's own data, written after a look at them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from compress.checkpoint import DESCRIPTION, read_description
from compress.data.formats import FORMATS, DataConfig, from_options, open_split
from compress.description import Described, understood
from compress.errors import CompressError
from compress.files import write_text
from compress.outputs import check_file
from compress.packaged import float_parent
from compress.recipe import load as load_recipe
from compress.stages.load import PACKAGED as SHIPPED
from compress.tasks import TASKS

PACKAGED, SCRATCH = "packaged", "scratch"
TRAINED = [name for name, task in TASKS.items() if task.begun_with]
# Views of training images after which such a network has learned about what it will, started from weights and from nothing.
TUNED_VIEWS, FRESH_VIEWS = 4_000, 40_000
FEWEST, MOST = 4, 400  # epochs
BUDGET = re.compile(r"(?P<ms>\d+(?:\.\d+)?)\s*ms@(?P<height>\d+)x(?P<width>\d+)")
RUNTIME = re.compile(r"(?P<runtime>onnxruntime|openvino)(?::(?P<precision>fp32|int8))?")


@dataclass(frozen=True)
class Budget:
    """What a call may take: milliseconds for an input of height x width pixels, in a runtime and a precision; ms is None for no limit."""

    ms: float | None
    size: tuple[int, int] | None
    runtime: str
    precision: str


def init(data: Path, out: Path, *, task: str | None, start: str, latency: str | None, runtime: str) -> list[str]:
    """Write a recipe to `out` and tell in a few lines what was found and what comes next.

    data: a folder of any format that the workbench reads. task: a name of `compress.tasks`, needed where the data could be of several.
    start: `packaged`, `scratch`, or a checkpoint folder. latency: such as `10ms@640x640`. runtime: such as `openvino:int8`.
    Raises CompressError for data of no known format, for a start of another task, and where `out` is somebody's file.
    """
    if out.exists():
        check_file(out)
    budget = budget_of(latency, runtime)
    found = recognised(data, task)
    begun = started(found.task, start)
    images = {split: len(open_split(found, split, 0)) for split in found.splits()}
    text = "\n".join(written(found, images, begun, start, budget)) + "\n"
    write_text(out, text)
    load_recipe(out)
    told = ", ".join(f"{count} {split}" for split, count in images.items())
    return [
        f"{data}: {told} images, format {found.format}, for {found.task}.",
        f"{out} is written. Look through it, then:",
        f"  compress plan {out}     # how long it takes here",
        f"  compress run {out}      # trains, writes the files and the table",
    ]


def budget_of(latency: str | None, runtime: str) -> Budget:
    """The budget that two options say. Raises CompressError for what cannot be read."""
    where = RUNTIME.fullmatch(runtime)
    if where is None:
        raise CompressError(f"--runtime: '{runtime}' is none; give onnxruntime or openvino, with :int8 or :fp32 behind it.")
    name, precision = where["runtime"], where["precision"] or "int8"
    if latency is None:
        return Budget(None, None, name, precision)
    found = BUDGET.fullmatch(latency)
    if found is None or not float(found["ms"]):
        raise CompressError(f"--latency: '{latency}' is no budget; give milliseconds and the size of an image, such as 10ms@640x640.")
    return Budget(float(found["ms"]), (int(found["height"]), int(found["width"])), name, precision)


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
            faults.append((usable(config), f"As {config.format}: {error}"))
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
        raise CompressError(f"--data: {root} cannot be read. {max(faults)[1]}")
    names = ", ".join(name for name, kind in FORMATS.items() if "root" in kind.model_fields and task in (None, kind.task))
    raise CompressError(f"--data: {root} is of no known format ({names}); docs/data.md shows what their folders look like.")


def usable(config: DataConfig) -> int:
    """How many training images of damaged data can be used."""
    try:
        return len(open_split(config.model_copy(update={"damaged": "skip"}), "train", 0, quiet=True))
    except CompressError:
        return 0


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


def started(task: str, start: str) -> Described | None:
    """The model that training starts from; None for fresh weights. Raises CompressError for one of another task."""
    if start == SCRATCH:
        return None
    folder = float_parent(task) if start == PACKAGED else Path(start)
    if not (folder / DESCRIPTION).is_file():
        raise CompressError(f"--from: {folder} is no checkpoint folder; give one, or `{PACKAGED}`, or `{SCRATCH}`.")
    found = understood(read_description(folder), folder / DESCRIPTION)
    if found.algorithm.task != task:
        raise CompressError(
            f"--from: {folder} is a model for {found.algorithm.task}, and the data are for {task}; give another, or --task."
        )
    return found


def written(data: DataConfig, images: dict[str, int], begun: Described | None, start: str, budget: Budget) -> Iterator[str]:
    """The lines of the recipe."""
    views = TUNED_VIEWS if begun else FRESH_VIEWS
    epochs = min(MOST, max(FEWEST, round(views / max(1, images["train"]))))
    lr = 3e-4 if begun else 2e-3
    again = max(FEWEST // 2, epochs // 2)
    size = budget.size or TASKS[data.task].crop
    config = begun.config if begun else dict(TASKS[data.task].begun_with)
    schedule = f"epochs: {{}}, lr: {lr:.1e}, decay: cosine, warmup: 0.3, ema: 0.99"
    schedule += ", freeze_norms: 0" if begun else ""
    yield f"# Made by `compress init`, from {images['train']} training images in {data.model_dump(mode='json')['root']}."
    yield "seed: 0"
    yield f"model: {flow(config)}"
    yield f"data: {flow({'format': data.format, 'root': data.model_dump(mode='json')['root']})}"
    if section := shown(data.task, begun, budget):
        yield f"evaluate: {flow(section)}"
    yield f"latency: {flow({'input': [1, 3, *size], 'threads': 1, 'runtimes': [budget.runtime]})}"
    yield ""
    yield "stages:"
    if begun:
        yield f"  - load:     {{name: start, checkpoint: {flow(f'{SHIPPED}{data.task}' if start == PACKAGED else start)}}}"
    yield f"  - train:    {{name: trained, {schedule.format(epochs)}}}"
    if budget.ms is not None:
        yield f"  # As many channels as {budget.ms:g} ms allow, by files measured here; then what that cost is learned back."
        target = flow({"latency": f"{budget.ms:g}ms", "runtime": budget.runtime, "precision": budget.precision})
        yield f"  - prune:    {{name: pruned, target: {target}, allocation: global, criterion: taylor, round_to: 8}}"
        yield f"  - distill:  {{name: distilled, teacher: trained, {schedule.format(again)}}}"
    yield f"  - export:   {{name: files, formats: {format_of(budget)}}}"
    if budget.precision == "int8":
        yield f"  - quantize: {{name: int8, from: {'distilled' if budget.ms is not None else 'trained'}, mode: ptq}}"
        yield f"  - export:   {{name: files_int8, formats: {format_of(budget)}}}"


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
