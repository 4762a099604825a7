"""`compress eval`: one artefact on one split, by its fixed settings, and by settings tuned on validation beside them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import progress
from compress.data.fitting import open_fitting
from compress.data.formats import given
from compress.data.split import SPLITS, Split
from compress.description import TUNED, save_tuned
from compress.errors import CompressError, suggestion
from compress.outside import allowing
from compress.predictor import Predictor, check_there, open_predictor, score
from compress.predictor import tune as choose

if TYPE_CHECKING:
    from compress.recipe import Recipe

log = logging.getLogger(__name__)


@allowing()
def assess(
    artefact: Path,
    *,
    recipe: Path | None = None,
    data: str | None = None,
    root: Path | None = None,
    split: str | None = None,
    tune: bool = False,
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> dict[str, Any]:
    """`task`, `scores` (metric -> value), `settings`, `images`, `split`, `artefact` and `runtime`; under `tuned` the `scores` and
    `settings` by tuned settings, and `val_score`, the main metric that they reach on validation; None where nothing was tuned.

    The data come from `data` and `root`, from a recipe, or from the experiment that the artefact lies in. split: unless said, `test`, or
    `val` where the data have no such part, as for a table's rows. `tune` chooses settings on the validation split and stores them beside a
    checkpoint, in the file called `stored` in what is returned; without it, those stored before are used, unless images are shown
    otherwise.
    Raises CompressError for what cannot be evaluated or read.
    """
    from compress.recipe import changed, load_named

    if split is not None and split not in SPLITS:
        raise CompressError(f"--split {split} is not known{suggestion(split, SPLITS)}")
    other = given(data, root)
    check_there(artefact)
    named = load_named(recipe, overrides) if recipe else None  # before the artefact, whose model it may allow
    stored = open_predictor(artefact, device=device)
    if other:
        config, evaluate = changed(other, stored.evaluate, stored.algorithm, overrides)
        seed = 0
    else:
        loaded = named or own_recipe(artefact, overrides)
        config, evaluate, seed = loaded.data, loaded.evaluate, loaded.seed
    if not config.serves(stored.task.name):
        raise CompressError(f"{artefact} is a model for {stored.task.name}, but data of the format {config.format} are for {config.task}.")
    split = split or ("test" if "test" in config.splits() else "val")
    predictor = stored.shown_as(evaluate)
    predictor.evaluate.settings(predictor.algorithm)
    if tune:
        tuned = tune_on(predictor, open_fitting(config, "val", seed, predictor.algorithm), artefact)
    else:
        tuned = fitting(predictor, stored.tuned)
    images = open_fitting(config, split, seed, predictor.algorithm)
    wanted = [predictor.evaluate] + ([predictor.evaluate.with_tuned(tuned)] if tuned else [])
    with progress.bar(f"evaluating on {images.name}", len(images)) as bar:
        scores = score(predictor, images, [predictor.reader(one) for one in wanted], bar.advance)
    reports = [{"scores": found, "settings": one.reported(predictor.algorithm)} for found, one in zip(scores, wanted, strict=True)]
    return {
        "task": predictor.task.name,
        **reports[0],
        "images": len(images),
        "split": split,
        "artefact": str(artefact),
        "runtime": f"{predictor.runtime} {predictor.precision}",
        "tuned": {**reports[1], "val_score": tuned["val_score"], "shown": tuned["shown"]} if tuned else None,
        "stored": str(artefact / TUNED) if tune and artefact.is_dir() else None,
    }


def fitting(predictor: Predictor, tuned: dict[str, Any]) -> dict[str, Any]:
    """Settings tuned before; none, with a warning, where images are shown otherwise than they were then."""
    try:
        predictor.evaluate.with_tuned(tuned)
    except CompressError as error:
        log.warning("%s They are left out.", error)
        return {}
    return tuned


def own_recipe(artefact: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe of the experiment that the artefact lies in."""
    from compress.recipe import load

    beside = next((folder / "recipe.yml" for folder in artefact.resolve().parents if (folder / "recipe.yml").exists()), None)
    if beside is None:
        raise CompressError(
            f"{artefact} lies in no experiment, so say what to evaluate on: --data icdar2015 --root DIR, or --recipe RECIPE."
        )
    return load(beside, overrides)


def tune_on(predictor: Predictor, images: Split, artefact: Path) -> dict[str, Any]:
    """Settings that reach the best main metric on `images`, and that value; stored beside a checkpoint."""
    if not predictor.algorithm.tunable:
        raise CompressError(f"--tune: {artefact} has no settings to choose; leave it out.")
    with progress.bar("tuning on validation", len(images)) as bar:
        settings, scores = choose(predictor, images, bar.advance)
    tuned = {"settings": settings, "shown": predictor.evaluate.how_shown(), "val_score": scores[predictor.task.main]}
    if artefact.is_dir():
        save_tuned(artefact, tuned)
    return tuned
