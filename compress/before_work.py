"""What would stop a run later and can be refused before any work: folders, data, patterns, sizes and other models that do not fit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from compress import outputs
from compress.checkpoint import DESCRIPTION, Model, fresh
from compress.data.fitting import long_told
from compress.data.training import normalise
from compress.errors import CompressError, suggestion
from compress.ledger import LEDGER, TABLES
from compress.processes import LOCK
from compress.recipe import Recipe, quantized_before
from compress.session import RECIPE, Session, before, is_recipe, make_lab, split_of, stage_named, train_split, tree, untrained, wanted_stage
from compress.stage_folder import check_free
from compress.stages import Stage
from compress.tasks import TASKS
from compress.tasks.task import Task
from compress.training.trackers import check_installed

if TYPE_CHECKING:
    from compress.models.contract import Algorithm

log = logging.getLogger(__name__)


def check_before_work(session: Session) -> None:
    """Everything that would stop a run later and can be seen now, teachers' recipes included: folders, data, patterns, other models."""
    for its in tree(session):
        try:
            check_folder(its)
            check_stages(its)
        except CompressError as error:
            raise error if its is session else CompressError(f"teacher {its.path.name}: {error}") from None


def check_folder(session: Session) -> None:
    """Refuse an experiment's folder that is a file or holds what a run would replace and no run has left."""
    folder, mine = session.folder, session.folder / RECIPE
    outputs.check_folder(folder)
    left_by_a_run = (folder / LEDGER).exists() or (folder / LOCK).exists()
    if mine.exists() and (mine.resolve() == session.path or not left_by_a_run) and mine.read_bytes() != session.recipe.dump().encode():
        raise CompressError(f"{mine} would be replaced by the recipe as it is run; give the experiment another folder with --out.")
    for name in TABLES:
        if (folder / name).exists() and not left_by_a_run:
            raise CompressError(
                f"{folder / name} would be replaced, and no run has left it; give the experiment another folder with --out."
            )
    for stage in session.recipe.stages:
        check_free(folder, stage.name)


def check_stages(session: Session) -> None:
    """Refuse data, patterns and other models that do not fit; texts that are too long to be learnt are told, once."""
    recipe = session.recipe
    check_installed(recipe.trackers)
    for name in ("train", "val", *({"test"} & set(recipe.data.splits()))):
        split_of(session, name)
    model = fresh(recipe.model, recipe.evaluate)
    others: dict[str, Model] = {}
    told: set[str] = set()
    quantized: dict[str, bool] = {}
    for stage in recipe.stages:
        try:
            config = before(recipe, stage)
            model = model if model.config == config else fresh(config, recipe.evaluate)
            stage.check(model)
            check_schedules(stage, model)
            check_crops(stage, model.algorithm)
            train_split(session, stage)
            for name in stage.other_models():
                check_named(recipe, stage, name)
                others[name] = others.get(name) or untrained(session, name)
            stage.check_others(model, others)
            parent = recipe.parent(stage) or ""
            if quantized.get(parent) and stage.needs_float():
                raise CompressError(f"it needs a float model, and '{parent}' is quantized; start from another.")
            quantized[stage.name] = gives_quantized(session, stage, quantized, others)
            for batch, size in sample_sizes(stage, TASKS[model.algorithm.task]):
                tell(long_told(train_split(session, stage), model.algorithm, size[1]), told)
                check_samples(session, stage, model, batch, size)
        except CompressError as error:
            raise CompressError(f"stage '{stage.name}': {error}") from None


def gives_quantized(session: Session, stage: Stage, before: Mapping[str, bool], others: Mapping[str, Model]) -> bool:
    """Whether what the stage gives is quantized. before: the same of earlier stages; others: as `check_others` has them."""
    source = stage.copied_model()
    if source is None:
        return stage.is_quantized or before.get(session.recipe.parent(stage) or "", False)
    its = session.others.get(source)
    if its is None:
        return bool(others[source].quantization)
    wanted = its.recipe.stage(wanted_stage(its, source))
    return wanted.is_quantized or quantized_before(its.recipe, wanted) is not None


def tell(warning: str, told: set[str]) -> None:
    """Log a warning that is not empty and not among those `told`."""
    if warning and warning not in told:
        told.add(warning)
        log.warning(warning)


def sample_sizes(stage: Stage, task: Task) -> Iterator[tuple[int, tuple[int, int]]]:
    """Images in a batch, and their height and width in pixels, of all training samples that a stage takes."""
    pruning = stage.pruning()
    if pruning:
        yield pruning.batch, pruning.crop or task.crop
    for schedule in (stage.schedule(), pruning.recover if pruning else None):
        if schedule:
            yield schedule.batch, schedule.size(task)


def check_samples(session: Session, stage: Stage, model: Model, batch: int, size: tuple[int, int]) -> None:
    """Refuse training samples that cannot be made, and sizes and batches that the network does not take: try one sample out."""
    wanted = model.algorithm.input
    try:
        samples = make_lab(session, session.folder, stage, quiet=True).training_set(size)
        image = torch.from_numpy(samples[0, 0]["image"])[None]
    except ValueError as error:
        raise CompressError(str(error)) from None
    images = normalise(image.expand(min(batch, len(samples), 2), *image.shape[1:]), (wanted.mean, wanted.std))
    try:
        with torch.no_grad():
            model.network.train()(images)
    except (ValueError, RuntimeError) as error:
        told = str(error).splitlines()[0]
        if "value per channel" in told:
            raise CompressError(f"a batch of one image cannot be normalised ({told}); take a larger batch") from None
        raise CompressError(f"crop: the network cannot be trained on images of {size[0]}x{size[1]} ({told}); take larger ones.") from None


def check_schedules(stage: Stage, model: Model) -> None:
    """Refuse layers to freeze that the unpruned model has not."""
    from compress.training.frozen import check_frozen

    pruning = stage.pruning()
    for schedule in (stage.schedule(), pruning.recover if pruning else None):
        if schedule and schedule.freeze:
            check_frozen(model.network, schedule.freeze)


def check_crops(stage: Stage, algorithm: Algorithm) -> None:
    """Refuse sizes of training images that the network does not divide, or that are no squares where the task wants them."""
    task, steps = TASKS[algorithm.task], algorithm.input.multiple
    for _, (height, width) in sample_sizes(stage, task):
        if task.square and height != width:
            raise CompressError(f"crop: models for {task.name} are trained on square images; give one number, not [{height}, {width}].")
        if height % steps[0] or width % steps[1]:
            fits = [max(1, round(side / step)) * step for side, step in zip((height, width), steps, strict=True)]
            raise CompressError(f"crop: [{height}, {width}] is no multiple of {list(steps)}, which the model needs; give {fits}.")


def check_named(recipe: Recipe, stage: Stage, name: str) -> None:
    """What a stage names must be a recipe, a checkpoint folder, or a stage before it that gives a model."""
    earlier = [other.name for other in recipe.stages[: recipe.stages.index(stage)] if other.gives_model]
    is_model = is_recipe(recipe, name) or (stage_named(recipe, name) is None and (Path(name) / DESCRIPTION).exists())
    if name not in earlier and not is_model:
        told = f"is neither an earlier stage that gives a model, a recipe (.yml), nor a checkpoint folder with a {DESCRIPTION}"
        raise CompressError(f"'{name}' {told}{suggestion(name, earlier)}")
