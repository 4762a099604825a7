"""`compress eval`: one artefact on one split.

A detector by its own thresholds, and by thresholds tuned on validation beside them; a classifier by its accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import progress
from compress.checkpoint import DESCRIPTION, load, save_description
from compress.data.formats import DataConfig, from_options, open_split
from compress.data.labels import open_labelled
from compress.data.split import SPLITS, Split
from compress.errors import CompressError, suggestion
from compress.evaluation.accuracy import accuracy
from compress.evaluation.detector import Detector, check_there, detect, open_model
from compress.evaluation.icdar import Score
from compress.evaluation.protocols import evaluate
from compress.evaluation.settings import Evaluate
from compress.evaluation.tune import tune as choose
from compress.outside import allowing

if TYPE_CHECKING:
    from compress.recipe import Recipe


@allowing()
def assess(
    artefact: Path,
    *,
    recipe: Path | None = None,
    data: str | None = None,
    root: Path | None = None,
    split: str = "test",
    tune: bool = False,
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> dict[str, Any]:
    """Precision, recall, hmean (0..1), thresholds, images, split, artefact and runtime; under `tuned` the same by tuned thresholds.

    The data come from `data` and `root`, from a recipe, or from the experiment that the artefact lies in. `tune` chooses thresholds on
    the validation split and stores them in a checkpoint's `model.yml`; without it, those stored before are used.
    Of a classifier accuracy (0..1), right, images, classes, data, artefact and runtime: there `data` is a label file or the folder of one,
    see :func:`compress.data.labels.open_labelled`, and nothing is tuned. Raises CompressError for what cannot be evaluated or read.
    """
    from compress.processes import device_name
    from compress.recipe import load_named

    if split not in SPLITS:
        raise CompressError(f"--split {split} is not known{suggestion(split, SPLITS)}")
    check_there(artefact)
    named = load_named(recipe, overrides) if recipe else None  # before the artefact, whose model it may allow
    detector = open_model(artefact, device=device_name(device))
    about = {"artefact": str(artefact), "runtime": f"{detector.runtime} {detector.precision}"}
    if detector.algorithm.task == "classification":
        if data is None or recipe or overrides or tune:
            raise CompressError(
                f"{artefact} names classes: say what to evaluate it on by --data LABELS.txt, lines of a path, a tab and a label, or the "
                "folder of such a file; --recipe, -o and --tune do not go with it."
            )
        return {**classified(detector, open_labelled(Path(data), split, detector.algorithm.labels, root)), "data": data, **about}
    config, seed, settings = find_data(artefact, named, data, root, overrides)
    settings = settings or detector.evaluate
    settings.thresholds(detector.algorithm)
    tuned = dict(detector.tuned)
    if tune:
        tuned = tune_on(detector, settings, open_split(config, "val", seed))
        if artefact.is_dir():
            store(artefact, tuned)
    pictures = open_split(config, split, seed)
    wanted = [settings] + ([settings.with_thresholds(**tuned["thresholds"])] if tuned else [])
    scores = score(detector, pictures, wanted)
    reports = [report(found, evaluated, detector) for found, evaluated in zip(scores, wanted, strict=True)]
    return {
        **reports[0],
        "images": len(pictures),
        "split": split,
        **about,
        "tuned": {**reports[1], "val_hmean": tuned["val_hmean"]} if tuned else None,
    }


def find_data(
    artefact: Path, recipe: Recipe | None, data: str | None, root: Path | None, overrides: Sequence[str]
) -> tuple[DataConfig, int, Evaluate | None]:
    """The data to evaluate on, their seed, and how to evaluate where a recipe says so: the one given, or that of the experiment."""
    from compress.recipe import load

    if data and overrides:
        raise CompressError(f"-o {overrides[0]} changes a recipe, and beside --data none has a say; leave out one of the two.")
    if data:
        return from_options(data, root), 0, None
    beside = next((folder / "recipe.yml" for folder in artefact.resolve().parents if (folder / "recipe.yml").exists()), None)
    if recipe is None and beside is None:
        raise CompressError(
            f"{artefact} lies in no experiment, so say what to evaluate on: --data icdar2015 --root DIR, or --recipe RECIPE."
        )
    loaded = recipe or load(beside, overrides)
    return loaded.data, loaded.seed, loaded.evaluate


def classified(detector: Detector, pictures: Split) -> dict[str, Any]:
    """Accuracy over labelled pictures."""
    with progress.bar(f"evaluating on {pictures.name}", len(pictures)) as bar:
        seen = detect(detector, pictures, bar.advance)
        found = [(detector.decode(maps, sample.image.shape[:2], detector.evaluate).label, sample.texts[0]) for sample, maps in seen]
    return asdict(accuracy(found))


def score(detector: Detector, pictures: Split, wanted: Sequence[Evaluate]) -> list[Score]:
    """The score by each of several settings of equal input size; the network runs once."""
    pairs: list[list] = [[] for _ in wanted]
    with progress.bar(f"evaluating on {pictures.name}", len(pictures)) as bar:
        for sample, maps in detect(detector.shown_as(wanted[0]), pictures, bar.advance):
            for found, settings in zip(pairs, wanted, strict=True):
                found.append(detector.judged(sample, maps, settings))
    return [evaluate(found, settings.protocol) for found, settings in zip(pairs, wanted, strict=True)]


def tune_on(detector: Detector, settings: Evaluate, pictures: Split) -> dict[str, Any]:
    """Thresholds that reach the best Hmean on `pictures`, and that Hmean."""
    algorithm = detector.algorithm
    with progress.bar("tuning on validation", len(pictures)) as bar:
        seen = [(maps, sample) for sample, maps in detect(detector.shown_as(settings), pictures, bar.advance)]
    thresholds, reached = choose(
        [maps for maps, _ in seen],
        [sample.image.shape[:2] for _, sample in seen],
        [(sample.polygons, sample.ignore, sample.texts) for _, sample in seen],
        algorithm.decode,
        settings.thresholds(algorithm),
        algorithm.tunable,
        settings.protocol,
    )
    return {"thresholds": {name: asdict(thresholds)[name] for name in algorithm.tunable}, "val_hmean": reached.hmean}


def store(folder: Path, tuned: dict[str, Any]) -> None:
    """Keep tuned thresholds in a checkpoint's description."""
    if not (folder / DESCRIPTION).exists():
        raise CompressError(f"{folder} has no {DESCRIPTION} to store thresholds in.")
    model = load(folder)
    model.tuned = tuned
    save_description(model, folder)


def report(score: Score, settings: Evaluate, detector: Detector) -> dict[str, Any]:
    """One score with what it was reached by."""
    thresholds = {"short_side": settings.short_side, **settings.reported(detector.algorithm)}
    return {"precision": score.precision, "recall": score.recall, "hmean": score.hmean, "thresholds": thresholds}
