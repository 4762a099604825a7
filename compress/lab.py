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
from compress.data.formats import open_split
from compress.evaluation.detector import Detector, detect, of_model
from compress.evaluation.icdar import Score
from compress.evaluation.protocols import evaluate
from compress.files import read_json, read_lines, write_json
from compress.outside import build

if TYPE_CHECKING:
    from compress.data.split import Split
    from compress.models.contract import Sample
    from compress.recipe import Recipe

ELAPSED, METRICS = "elapsed.json", "metrics.jsonl"


@dataclass
class Lab:
    """The surroundings of one stage.

    open_teacher: a recipe or a checkpoint folder, as a stage names it, to the model.
    folder: where to write; it is renamed into place when the stage is complete. artefacts: what the stage has left there.
    splits: opened splits, shared by all stages of a run.
    """

    recipe: Recipe
    folder: Path
    device: torch.device
    open_teacher: Callable[[str], Model]
    quiet: bool = False
    splits: dict[str, Split] = field(default_factory=dict)
    artefacts: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    @functools.cached_property
    def model_mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation that the recipe's model wants its pictures normalised with."""
        algorithm = build(self.recipe.model)
        return algorithm.mean, algorithm.std

    def split(self, name: str) -> Split:
        """One split of the recipe's data: `train`, `val` or `test`."""
        if name not in self.splits:
            self.splits[name] = open_split(self.recipe.data, name, self.recipe.seed, self.quiet)
        return self.splits[name]

    @property
    def report_split(self) -> str:
        """The split that rows are measured on: `test` where the data have one, else `val`."""
        return "test" if "test" in self.recipe.data.splits() else "val"

    def bar(self, label: str, total: int, done: int = 0) -> AbstractContextManager[progress.Bar]:
        """Show work on `total` pictures."""
        return progress.bar(label, total, done=done, quiet=self.quiet)

    def evaluate(self, model: Model, split: str) -> Score:
        """Precision, recall and Hmean of a model in memory, by the recipe's thresholds."""
        return self.score(of_model(model), self.split(split))

    def score(self, detector: Detector, pictures: Split | Sequence[Sample]) -> Score:
        """Precision, recall and Hmean of anything that detects, by the recipe's input size, thresholds and protocol."""
        settings = self.recipe.evaluate
        seen = detect(detector.shown_as(settings), pictures)
        return evaluate((detector.judged(sample, maps, settings) for sample, maps in seen), settings.protocol)

    def add(self, suffix: str, path: str, **facts: Any) -> None:
        """Leave an artefact to be measured: row `<stage>/<suffix>`, at `path` inside the folder; `facts` go into its row as they are."""
        self.artefacts.append({"suffix": suffix, "path": path, **facts})

    def add_trained(self, suffix: str = "", path: str = ".", **facts: Any) -> None:
        """Leave what `training.loop.fit` wrote at `path`: the best epoch on validation and, as `last` below it, the last one.

        `facts` go into both rows.
        """
        evaluated = [entry for entry in read_lines(self.folder / path / METRICS) if "val_hmean" in entry]
        best = max(evaluated, key=lambda entry: entry["val_hmean"])
        for name, place, entry in (("", path, best), ("last", os.path.normpath(f"{path}/last"), evaluated[-1])):
            row = "/".join(part for part in (suffix, name) if part)
            self.add(row, place, epoch=entry["epoch"], val_hmean=entry["val_hmean"], **facts)

    def save(self, model: Model, folder: Path) -> None:
        """Save a checkpoint, from the main process of a distributed run alone."""
        if int(os.environ.get("RANK", "0")) == 0:
            save(model, folder)

    def elapsed(self) -> float:
        """Seconds spent on this stage, those of runs that were cut off included."""
        return self.before + time.perf_counter() - self.started

    @functools.cached_property
    def before(self) -> float:
        """Seconds that earlier runs had spent when they last noted it."""
        return read_json(self.folder / ELAPSED) or 0.0

    def note_elapsed(self) -> None:
        """Write down the time spent, for a run that resumes after this one is cut off."""
        write_json(self.folder / ELAPSED, self.elapsed())
