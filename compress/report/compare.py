"""The same validation images by every artefact of an experiment: those on which the first row and the last differ the most."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from compress.data.cache import cache_folder
from compress.errors import CompressError
from compress.files import fingerprint, remembered, write_json
from compress.ledger import Row
from compress.outside import ALLOWED
from compress.pipeline import DESCRIPTION as PIPELINE
from compress.pipeline import is_pipeline
from compress.recipe import load
from compress.records import Compared
from compress.report.collect import Experiment, stage_name
from compress.report.findings import distinct

if TYPE_CHECKING:
    from compress.data.split import Split
    from compress.models.contract import Sample
    from compress.predictor import Predictor
    from compress.recipe import Recipe
    from compress.tasks.task import Evaluate, Scores, Shape, Task

WEIGHTS = "model.safetensors"  # as compress.checkpoint has it, which would import torch
LAYOUT = 4  # of what `compare` returns, and so of what is kept
LONGEST = 1600  # pixels, the longer side of an embedded image: a photograph of 1280 x 720 is shown as it is


def compare(experiment: Experiment, images: int) -> dict[str, Any]:
    """The answers of every artefact on the `images` validation images that changed the most, kept so that a second call runs no network.

    Returns `notes`, one sentence for each artefact left out and for what else is missing, `task`, and `images`: each with its `name`,
    `width` and `height` in its own pixels, `jpeg` (base64), `truth` (shapes), and `found`: stage -> `shapes`, `told` (the answer in
    words) and `scores` on this image alone. A shape has an `outline` (a list of [x, y], or None), a `caption`, and whether it `counts`.
    """
    rows = distinct([row for row in experiment.rows if stage_name(row) not in experiment.foreign])
    digests = {row.stage: digest(experiment.folder / row.artefact) for row in rows}
    try:
        recipe, split = validation(experiment)
        shown = [LAYOUT, images, experiment.recipe, digests, sorted(ALLOWED.get()), split.fingerprint()]
        kept = cache_folder() / "report" / f"{fingerprint(shown)}.json"
        known: Any = remembered(kept, Compared)
        if known is None:
            known = compared(experiment, rows, images, recipe, split)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, known)
    except CompressError as error:
        return {"notes": [f"There are no answers here: {error}"], "images": []}
    return known


def validation(experiment: Experiment) -> tuple[Recipe, Split]:
    """The experiment's recipe and its validation images as they are now. Raises CompressError where they have gone."""
    from compress.data.formats import open_split

    if not experiment.recipe:
        raise CompressError(f"{experiment.folder} has no recipe.yml, which says what data to take.")
    recipe = load(experiment.folder / "recipe.yml")
    return recipe, open_split(recipe.data, "val", recipe.seed)


def digest(artefact: Path) -> str | None:
    """sha256 of an artefact's weights; None where they are missing."""
    if is_pipeline(artefact):
        artefact = artefact / PIPELINE  # which has the digests of all files
    files = {".xml": [artefact, artefact.with_suffix(".bin")], "": [artefact / WEIGHTS]}.get(artefact.suffix, [artefact])
    if not all(file.is_file() for file in files):
        return None
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def compared(experiment: Experiment, rows: Sequence[Row], images: int, recipe: Recipe, split: Split) -> dict[str, Any]:
    """:func:`compare` without looking for what it found before.

    Only the first and the last artefact see the whole split; the others see the chosen images.
    """
    predictors, notes = open_all(experiment, rows)
    if len(predictors) < 2:
        raise CompressError("it takes two artefacts to compare. " + " ".join(notes))
    first, *_, last = predictors
    task, evaluate = predictors[first].task, recipe.evaluate
    before, after = (main_scores(predictors[stage], evaluate, split) for stage in (first, last))
    samples = [split[index] for index in most_changed(before, after, images)]
    shown = [plain_image(sample, task) for sample in samples]
    for stage, predictor in predictors.items():
        for image, (sample, answer) in zip(shown, answers(predictor, evaluate, samples), strict=True):
            image["found"][stage] = plain_answer(sample, answer, task, evaluate)
    by = ", ".join(f"{name} {value}" for name, value in evaluate.model_dump(mode="json").items())
    notes.insert(
        0,
        f"Of the {len(split)} images of the validation split, those on which {first} and {last} differ the most in {task.metric.label}, "
        f"shown and judged by {by}. The scores are of each image alone.",
    )
    return {"notes": notes, "task": task.name, "images": shown}


def open_all(experiment: Experiment, rows: Sequence[Row]) -> tuple[dict[str, Predictor], list[str]]:
    """Stage -> predictor, of those that open, and in sentences why the others are left out."""
    from compress.predictor import open_predictor

    missing = [row.stage for row in rows if digest(experiment.folder / row.artefact) is None]
    notes = [f"Left out, as their weights are not there: {', '.join(missing)}."] if missing else []
    predictors: dict[str, Predictor] = {}
    for row in rows:
        if row.stage in missing:
            continue
        if row.task != rows[0].task:
            notes.append(f"{row.stage} is left out: its task is {row.task}.")
            continue
        try:
            predictors[row.stage] = open_predictor(experiment.folder / row.artefact)
        except CompressError as error:
            notes.append(f"{row.stage} is left out: {error}")
    return predictors, notes


def answers(predictor: Predictor, evaluate: Evaluate, samples: Split | Sequence[Sample]) -> Iterator[tuple[Sample, Any]]:
    """Every sample with the answer about it, by the recipe's input size and settings; a few images are in memory at a time."""
    from compress.predictor import seen

    shown = predictor.shown_as(evaluate)
    read = shown.reader()
    return ((sample, read(outputs, sample.image.shape[:2])) for sample, outputs in seen(shown, samples))


def judged(sample: Sample, answer: Any, task: Task, evaluate: Evaluate) -> Scores:
    """The scores of one image alone."""
    return task.judge([(answer, sample.truth)], evaluate)


def main_scores(predictor: Predictor, evaluate: Evaluate, samples: Split | Sequence[Sample]) -> np.ndarray:
    """The main metric of each image alone."""
    task = predictor.task
    return np.array([judged(sample, answer, task, evaluate)[task.main] for sample, answer in answers(predictor, evaluate, samples)])


def most_changed(before: np.ndarray, after: np.ndarray, images: int) -> list[int]:
    """Indices of the images whose metric changed the most, either way; of equal ones a fall before a rise, the worse, then the earlier."""
    change = after - before
    order = sorted(range(len(change)), key=lambda index: (-round(abs(change[index]), 9), change[index], after[index], index))
    return order[:images]


def plain_image(sample: Sample, task: Task) -> dict[str, Any]:
    """One image with its ground truth, as plain values, and room for what was found."""
    height, width = sample.image.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    small = cv2.resize(sample.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else sample.image
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return {
        "name": sample.name,
        "width": width,
        "height": height,
        "jpeg": base64.b64encode(data.tobytes()).decode(),
        "truth": [plain_shape(shape) for shape in task.true_shapes(sample.truth)],
        "found": {},
    }


def plain_answer(sample: Sample, answer: Any, task: Task, evaluate: Evaluate) -> dict[str, Any]:
    """One answer as plain values."""
    return {
        "shapes": [plain_shape(shape) for shape in task.shapes(answer)],
        "told": task.told(answer),
        "scores": {metric.name: judged(sample, answer, task, evaluate)[metric.name] for metric in task.metrics},
    }


def plain_shape(shape: Shape) -> dict[str, Any]:
    """A shape as plain values, its outline to a tenth of a pixel."""
    outline = None if shape.outline is None else np.round(np.asarray(shape.outline, np.float64), 1).tolist()
    return {"outline": outline, "caption": shape.caption, "counts": bool(shape.counts)}
