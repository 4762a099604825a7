"""Look before training: what a data set holds, what is wrong with it, and what the network will be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from compress import outputs
from compress.data.data_format import DataFormat
from compress.data.fitting import unreadable
from compress.data.formats import DataConfig
from compress.data.lines.alphabets import named_alphabet
from compress.data.split import evenly
from compress.errors import CompressError
from compress.models.contract import Sample
from compress.outside import allowing, build
from compress.tasks import TASKS
from compress.tasks.task import Task

if TYPE_CHECKING:
    from compress.data.training import TrainingSet

TILE = 560  # pixels, the longer side of an image on a contact sheet
COLUMNS = 4
CAPTION = (255, 255, 255)


@dataclass(frozen=True)
class SplitReport:
    """One split. counts: what its task counts in the ground truth. problems: name file and line."""

    name: str
    images: int
    counts: dict[str, int]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What `check` found, one entry for each split."""

    splits: tuple[SplitReport, ...]

    def __str__(self) -> str:
        counts = (", ".join([f"{s.name}: {s.images} images", *(f"{n} {what}" for what, n in s.counts.items())]) for s in self.splits)
        problems = (f"  {problem}" for problem in self.problems)
        return "\n".join([*counts, f"{len(self.problems)} problem{'s' * (len(self.problems) != 1)}", *problems])

    @property
    def problems(self) -> tuple[str, ...]:
        """Those of all splits, each once."""
        return tuple(dict.fromkeys(problem for split in self.splits for problem in split.problems))


def check(config: DataConfig, seed: int, out_png: Path | None = None, alphabet: str | None = None, steps: int | None = None) -> Report:
    """Read every split and count. Damage is reported, not refused, whatever `config` says of it.

    out_png: where to draw a few images of each split with their ground truth, if there are any; a file that the workbench has not written
    is not replaced. alphabet: of the model that is to read lines, a name or a dictionary: texts with other characters are problems.
    steps: those of its input: texts that need more are problems.
    """
    if out_png:
        outputs.check_file(out_png)
    config = skipping(config)
    task = TASKS[config.task]
    known = named_alphabet(alphabet) if alphabet else None
    reports, tiles = [], []
    for name in config.splits():
        split = config.open(name, seed)
        counts = task.counts(annotation.truth for annotation in split.annotations)
        found = unreadable(split, known, steps) if known or steps else {}
        counts |= {what: len(problems) for what, problems in found.items()}
        problems = [problem for problems in found.values() for problem in problems]
        reports.append(SplitReport(name, len(split), counts, (*split.problems, *problems)))
        if out_png and len(split):
            tiles.append([drawn(task, split[index], f"{name} {split.annotations[index].name}") for index in evenly(len(split), COLUMNS)])
    if out_png and tiles:
        save(tiles, out_png)
    return Report(tuple(reports))


def skipping(config: DataFormat) -> DataFormat:
    """The same data with damage left out, in those that they are made of too."""
    changed: dict[str, object] = {name: skipping(part) for name, part in config if isinstance(part, DataFormat)}
    if "damaged" in type(config).model_fields:
        changed["damaged"] = "skip"
    return config.model_copy(update=changed)


def preview(training_set: TrainingSet, task: Task, out_png: Path, count: int = 6) -> None:
    """Draw `count` views of epoch 0, evenly over the images, a row each: the image, outlined, then each target map laid over it."""
    rows = []
    for index in evenly(len(training_set), count):
        sample = training_set.view(0, index)
        maps = {name: target.squeeze() for name, target in training_set.targets(sample).items()}
        shown = {name: target for name, target in maps.items() if target.shape == sample.image.shape[:2]}
        rows.append([drawn(task, sample, sample.name)] + [overlaid(sample, target, name) for name, target in shown.items()])
    save(rows, out_png)


@allowing()
def preview_recipe(recipe: Path, overrides: Sequence[str], out_png: Path, count: int) -> None:
    """Draw samples as the first training stage of a recipe is shown them."""
    outputs.check_file(out_png)
    from compress.data.training import TrainingSet
    from compress.recipe import load_named

    loaded = load_named(recipe, overrides)
    found = next(((stage, schedule) for stage in loaded.stages if (schedule := stage.schedule())), None)
    if found is None:
        raise CompressError(f"{recipe} has no stage that trains, so there are no training samples to draw.")
    stage, schedule = found
    data, augment = loaded.training(stage)
    algorithm = build(loaded.model)
    task = TASKS[algorithm.task]
    training_set = TrainingSet(data.open("train", loaded.seed), algorithm, augment, schedule.size(task), loaded.seed)
    preview(training_set, task, out_png, count)


def drawn(task: Task, sample: Sample, caption: str) -> np.ndarray:
    """The image with its ground truth, its longer side `TILE` pixels."""
    tile, _ = shrunk(task.outlined(sample.image, sample.truth))
    return captioned(tile, caption)


def overlaid(sample: Sample, target: np.ndarray, caption: str) -> np.ndarray:
    """The image, dimmed, under the map: blue where it is lowest, red where it is highest."""
    tile, _ = shrunk(sample.image)
    level, _ = shrunk((255 * target.astype(np.float32).clip(0, 1)).astype(np.uint8))
    colours = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    return captioned(cv2.addWeighted(tile, 0.4, colours, 0.6, 0), caption)


def shrunk(image: np.ndarray) -> tuple[np.ndarray, float]:
    height, width = image.shape[:2]
    scale = TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), scale


def captioned(tile: np.ndarray, caption: str) -> np.ndarray:
    (width, _), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    cv2.rectangle(tile, (0, 0), (width + 8, 20), (0, 0, 0), cv2.FILLED)
    cv2.putText(tile, caption, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, CAPTION, 1, cv2.LINE_AA)
    return tile


def save(rows: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    """Write rows of (h, w, 3) uint8 tiles as one PNG, each in a cell as large as the largest needs."""
    height = max(tile.shape[0] for row in rows for tile in row)
    width = max(tile.shape[1] for row in rows for tile in row)
    sheet = np.full((len(rows) * height, max(map(len, rows)) * width, 3), 32, np.uint8)
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            h, w = tile.shape[:2]
            sheet[down * height : down * height + h, across * width : across * width + w] = tile
    outputs.write({path: outputs.png(sheet)})
