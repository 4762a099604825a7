"""What a stage is given: data, device, evaluation, a folder to write in, and a way to show progress."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compress import progress
from compress.checkpoint import Model, save
from compress.data.fitting import open_fitting
from compress.data.training import TrainingSet
from compress.errors import CompressError
from compress.evaluation.jackknife import without_each_block
from compress.files import read_lines, remembered, write_json
from compress.outside import build
from compress.predictor import Predictor, answers, of_model, score
from compress.processes import main_process
from compress.records import Epoch, Seconds
from compress.stage_folder import ELAPSED, METRICS
from compress.tasks import TASKS
from compress.tasks.task import Scores, Task

if TYPE_CHECKING:
    from compress.data.split import Split
    from compress.models.contract import Algorithm, Sample
    from compress.run_settings import RunSettings


@dataclass
class Lab:
    """The surroundings of one stage.

    open_teacher: a recipe or a checkpoint folder, as a stage names it, to the model.
    folder: where to write; it is renamed into place when the stage is complete. artefacts: what the stage has left there.
    splits: opened splits, shared by all stages of a run. name: the stage's, for what is shown.
    """

    recipe: RunSettings
    folder: Path
    device: torch.device
    open_teacher: Callable[[str], Model]
    quiet: bool = False
    splits: dict[str, Split] = field(default_factory=dict)
    artefacts: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    name: str = ""

    @functools.cached_property
    def algorithm(self) -> Algorithm:
        """That of the recipe's model."""
        return build(self.recipe.model)

    @property
    def task(self) -> Task:
        """The task of the recipe's model."""
        return TASKS[self.algorithm.task]

    @property
    def mean_std(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and standard deviation that the recipe's model wants its images normalised with."""
        return self.algorithm.input.mean, self.algorithm.input.std

    def training_set(self, size: tuple[int, int]) -> TrainingSet:
        """Random views, of height and width `size`, of the images that the stage trains on."""
        return TrainingSet(self.split("train"), self.algorithm, self.recipe.augment, size, self.recipe.seed)

    def split(self, name: str) -> Split:
        """One split of the recipe's data: `train`, `val` or `test`."""
        if name not in self.splits:
            self.splits[name] = open_fitting(self.recipe.data, name, self.recipe.seed, self.algorithm, self.quiet)
        return self.splits[name]

    @property
    def report_split(self) -> str:
        """The split that rows are measured on: `test` where the data have one, else `val`."""
        return "test" if "test" in self.recipe.data.splits() else "val"

    def bar(self, label: str, total: int, done: int = 0) -> AbstractContextManager[progress.Bar]:
        """Show work on `total` images."""
        return progress.bar(label, total, done=done, quiet=self.quiet)

    def evaluate(self, model: Model, split: str) -> Scores:
        """The scores of a model in memory on a split, by the recipe's settings."""
        return self.score(of_model(model), self.split(split))

    def score(self, predictor: Predictor, images: Split | Sequence[Sample]) -> Scores:
        """The scores of anything that predicts, by the recipe's input size and settings."""
        return score(predictor.shown_as(self.recipe.evaluate), images)[0]

    def score_in_blocks(self, predictor: Predictor, images: Split | Sequence[Sample]) -> tuple[Scores, list[float]]:
        """The same, and the main metric without each of the blocks of images by which differences of two models are judged."""
        shown = predictor.shown_as(self.recipe.evaluate)
        (found,) = answers(shown, images, [shown.reader()])

        def main(some: Sequence[tuple[Any, Any]]) -> float:
            return self.task.judge(some, shown.evaluate)[self.task.main]

        return self.task.judge(found, shown.evaluate), without_each_block(main, found)

    def add(self, suffix: str, path: str, **facts: Any) -> None:
        """Leave an artefact to be measured: row `<stage>/<suffix>`, at `path` inside the folder; `facts` go into its row as they are."""
        self.artefacts.append({"suffix": suffix, "path": path, **facts})

    def add_trained(self, suffix: str = "", path: str = ".", **facts: Any) -> None:
        """Leave what `training.loop.fit` wrote at `path`: the best epoch on validation and, as `last` below it, the last one.

        `facts` go into both rows.
        """
        best, last = best_and_last(self.folder / path, self.task)
        for name, place, entry in (("", path, best), ("last", os.path.normpath(f"{path}/last"), last)):
            row = "/".join(part for part in (suffix, name) if part)
            self.add(row, place, epoch=entry["epoch"], val_score=entry[f"val_{self.task.main}"], **facts)

    def save(self, model: Model, folder: Path) -> None:
        """Save a checkpoint, from the main process of a distributed run alone."""
        if main_process():
            save(model, folder)

    def elapsed(self) -> float:
        """Seconds spent on this stage, those of runs that were cut off included."""
        return self.before + time.perf_counter() - self.started

    @functools.cached_property
    def before(self) -> float:
        """Seconds that earlier runs had spent when they last noted it."""
        return remembered(self.folder / ELAPSED, Seconds) or 0.0

    def note_elapsed(self) -> None:
        """Write down the time spent, for a run that resumes after this one is cut off."""
        write_json(self.folder / ELAPSED, self.elapsed())


def no_teacher(name: str) -> Model:
    """The way to other models of a lab that belongs to no stage."""
    raise CompressError(f"{name}: nothing but a stage of a recipe works with other models.")


def best_and_last(folder: Path, task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics of the epoch that was best on validation, the first of equals, and of the last one that was evaluated."""
    name = f"val_{task.main}"
    evaluated = [entry for entry in read_lines(folder / METRICS, Epoch) if name in entry]
    best = evaluated[0]
    for entry in evaluated[1:]:
        if task.metric.gain(best[name], entry[name]) > 0:
            best = entry
    return best, evaluated[-1]
