"""Runs a recipe: skips what is done, resumes what was cut off, measures what was made, and keeps the ledger."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import ledger
from compress.data.formats import open_split
from compress.errors import CompressError, suggestion
from compress.files import write_json, write_text
from compress.ledger import Row
from compress.outside import allowing, code_of
from compress.processes import agreed, device_name, main_process, only_run_in, wait_for_everyone
from compress.progress import console
from compress.recipe import Recipe, experiment_name, fingerprint, load_named
from compress.rows import hold_to, stage_rows
from compress.stage_folder import MANIFEST, files_in, find_cached, prepare_partial, set_aside, state_of
from compress.teachers import open_teacher, stage_named, teacher_done, teacher_key, teacher_rows, untrained

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.data.split import Split
    from compress.lab import Lab
    from compress.stages import Stage

# Data are in the key by what they hold, not by where they lie.
NOT_IN_KEY = {"name", "from_", "expect", "workers", "data"}


@dataclass
class Experiment:
    """One recipe being run in one folder.

    time_again: whether latencies of rows that are at hand are taken anew.
    keys: stage -> cache key, of the stages reached so far. rows: the ledger so far. splits: data opened so far. teachers: recipe or
    checkpoint folder, as a stage names it -> checkpoint folder and row, of those that are ready.
    """

    recipe: Recipe
    folder: Path
    overrides: tuple[str, ...]
    device: str
    quiet: bool
    time_again: bool = False
    keys: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    splits: dict[str, Any] = field(default_factory=dict)
    teachers: dict[str, tuple[Path, Row | None]] = field(default_factory=dict)


@allowing()
def run(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    redo_from: str | None = None,
    time_again: bool = False,
    device: str = "auto",
    quiet: bool = False,
) -> list[Row]:
    """Run the recipe at a path, with `key=value` overrides, and return the rows of its ledger.

    out: the experiment's folder; `experiments/<recipe>` unless said. redo_from: a stage to do again, with all that start from it.
    time_again: take every latency anew, also of what has rows already and of teachers' recipes.
    device: `auto`, `cpu` or `cuda`. Raises CompressError, with everything finished so far kept, for whatever a user can mend.
    """
    from compress.training.devices import subnormals_as_zeros

    loaded = load_named(recipe, overrides)
    folder = folder_of(recipe, out)
    experiment = Experiment(loaded, folder, tuple(overrides), device, quiet, time_again)
    if redo_from:
        check_stage(loaded, redo_from)
    with subnormals_as_zeros():
        check_before_work(experiment)
        folder.mkdir(parents=True, exist_ok=True)
        with only_run_in(folder):
            do_stages(experiment, redo_from)
    return experiment.rows


def do_stages(experiment: Experiment, redo_from: str | None) -> None:
    """All stages in their order; from `redo_from` on, those that start from a stage done again are done again."""
    if main_process():
        write_text(experiment.folder / "recipe.yml", experiment.recipe.dump())
    redone: set[str] = set()
    for stage in experiment.recipe.stages:
        again = stage.name == redo_from or not redone.isdisjoint((experiment.recipe.parent(stage), *stage.other_models()))
        if again:
            redone.add(stage.name)
        do_stage(experiment, stage, again=again)


def folder_of(recipe: str | Path, out: str | Path | None) -> Path:
    """The experiment's folder of a recipe."""
    return Path(out) if out else Path("experiments") / experiment_name(Path(recipe))


@allowing()
def dry_run(recipe: str | Path, overrides: Sequence[str] = (), *, out: str | Path | None = None, redo_from: str | None = None) -> list[str]:
    """One line for each stage: where it starts, and whether its folder is complete, begun or to be done. Checks all that a run checks."""
    experiment = prepare(recipe, overrides, out)
    if redo_from:
        check_stage(experiment.recipe, redo_from)
    check_before_work(experiment)
    parents = {stage.name: experiment.recipe.parent(stage) for stage in experiment.recipe.stages}
    kinds = {stage.name: stage.kind for stage in experiment.recipe.stages}
    return [
        f"{name}: {kinds[name]}{' from ' + parents[name] if parents[name] else ''}: {state}"
        for name, state in states(experiment, redo_from).items()
    ]


def prepare(recipe: str | Path, overrides: Sequence[str] = (), out: str | Path | None = None) -> Experiment:
    """A recipe and its folder, to look at without running anything."""
    return Experiment(load_named(recipe, overrides), folder_of(recipe, out), tuple(overrides), "cpu", True)


def states(experiment: Experiment, redo_from: str | None = None) -> dict[str, str]:
    """Stage -> `in the cache`, `begun` or `to do`."""
    found: dict[str, str] = {}
    for stage in experiment.recipe.stages:
        parent = experiment.recipe.parent(stage)
        others = stage.other_models()
        waits = any(found.get(name, "in the cache") != "in the cache" for name in (parent, *others))
        if stage.name == redo_from or waits or not all(teacher_done(experiment, name) for name in others):
            found[stage.name] = "to do"
        else:
            experiment.keys[stage.name] = stage_key(experiment, stage)
            found[stage.name] = state_of(experiment.folder, stage.name, experiment.keys[stage.name])
    return found


def check_stage(recipe: Recipe, name: str) -> None:
    """Refuse the name of a stage that is not there."""
    names = [stage.name for stage in recipe.stages]
    if name not in names:
        raise CompressError(f"--from {name}: the recipe has no such stage{suggestion(name, names)}")


def check_before_work(experiment: Experiment) -> None:
    """Everything that would stop the run later and can be seen now: data, patterns, teachers."""
    from compress.checkpoint import fresh
    from compress.training.trackers import check_installed

    recipe = experiment.recipe
    check_installed(recipe.trackers)
    for name in ("train", "val"):
        split_of(experiment, name)
    model = fresh(recipe.model, recipe.evaluate)
    others: dict[str, Model] = {}
    for stage in recipe.stages:
        try:
            stage.check(model)
            train_split(experiment, stage)
            for name in stage.other_models():
                check_named(recipe, stage, name)
                others[name] = others.get(name) or untrained(experiment, name)
            stage.check_others(model, others)
        except CompressError as error:
            raise CompressError(f"stage '{stage.name}': {error}") from None


def check_named(recipe: Recipe, stage: Stage, name: str) -> None:
    """What a stage names must be a recipe, a checkpoint folder, or a stage before it that gives a model."""
    earlier = [other.name for other in recipe.stages[: recipe.stages.index(stage)] if other.gives_model]
    is_file = Path(name).suffix in (".yml", ".yaml") or (Path(name) / "model.yml").exists()
    if name not in earlier and (stage_named(recipe, name) or not is_file):
        told = "is neither an earlier stage that gives a model, a recipe (.yml), nor a checkpoint folder with a model.yml"
        raise CompressError(f"'{name}' {told}{suggestion(name, earlier)}")


def split_of(experiment: Experiment, name: str) -> Split:
    """A split of the recipe's data, opened once."""
    if name not in experiment.splits:
        experiment.splits[name] = open_split(experiment.recipe.data, name, experiment.recipe.seed, experiment.quiet)
    return experiment.splits[name]


def train_split(experiment: Experiment, stage: Stage) -> Split:
    """The pictures that a stage trains on: the recipe's, or its own, opened once."""
    data, _ = experiment.recipe.training(stage)
    if data is experiment.recipe.data:
        return split_of(experiment, "train")
    name = f"{stage.name}/train"
    if name not in experiment.splits:
        experiment.splits[name] = open_split(data, "train", experiment.recipe.seed, experiment.quiet)
    return experiment.splits[name]


def data_fingerprints(experiment: Experiment, stage: Stage) -> dict[str, str]:
    """What identifies the pictures that a stage trains on, and those by which its best epoch is chosen."""
    return {"train": train_split(experiment, stage).fingerprint(), "val": split_of(experiment, "val").fingerprint()}


def do_stage(experiment: Experiment, stage: Stage, *, again: bool) -> None:
    """Bring one stage to completion, measure it, add its rows to the ledger, and hold it to what is expected of it."""
    others = teacher_rows(experiment, stage)
    key = stage_key(experiment, stage)
    experiment.keys[stage.name] = key
    folder = experiment.folder / stage.name
    if not agreed(lambda: not again and find_cached(experiment.folder, stage.name, key)):
        work(experiment, stage, key)
    elif not experiment.quiet:
        console.print(f"  {stage.name}: in the cache", markup=False)
    if main_process():
        rows = stage_rows(experiment, stage, make_lab(experiment, folder, stage))
        experiment.rows += [*others, *rows]
        ledger.write(experiment.folder, experiment.rows)
        hold_to(stage, rows, experiment.rows[0])
    wait_for_everyone()


def stage_key(experiment: Experiment, stage: Stage) -> str:
    """sha256 over all that decides a stage's outcome."""
    recipe, parent = experiment.recipe, experiment.recipe.parent(stage)
    code, weights = code_of(recipe.model), weights_key(getattr(stage, "weights", None))
    return fingerprint(
        {
            "parent": experiment.keys.get(parent) if parent else None,
            "kind": stage.kind,
            "config": stage.model_dump(mode="json", exclude=NOT_IN_KEY | {"teacher", "checkpoint"}),
            "teacher": [teacher_key(experiment, name) for name in stage.other_models()] or None,
            "recipe": as_seen_by(recipe, stage).model_dump(mode="json", include={"seed", "model", "augment", "evaluate"}),
            "data": list(data_fingerprints(experiment, stage).values()),
            "versions": versions(),
            **({"code": code} if code else {}),
            **({"weights": weights} if weights else {}),
        }
    )


def weights_key(source: str | None) -> str | None:
    """What identifies the weights that a training starts from: those of a folder or a file by what they hold, no path and no URL."""
    path = Path(source or "")
    if path.is_dir():
        path = path / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if source and path.is_file() else None


def versions() -> dict[str, str]:
    """Packages whose version may change what a stage gives."""
    return {name: version(name) for name in ("compress-ocr", "torch", "torch-pruning", "nncf")}


def work(experiment: Experiment, stage: Stage, key: str) -> None:
    """Apply the stage in its partial folder, resuming one of the same key, and rename it when it is complete."""
    from compress.checkpoint import load as load_checkpoint

    partial = experiment.folder / f"{stage.name}.partial"
    if main_process():
        prepare_partial(partial, key)
    wait_for_everyone()
    parent = experiment.recipe.parent(stage)
    model = load_checkpoint(experiment.folder / parent) if parent else None
    lab = make_lab(experiment, partial, stage)
    if not experiment.quiet:
        console.print(f"  {stage.name}: {stage.kind}{' from ' + parent if parent else ''}", markup=False)
    if stage.every_process or main_process():
        stage.apply(model, lab)
    if main_process():
        finish(experiment, stage, key, partial, lab)
    wait_for_everyone()


def finish(experiment: Experiment, stage: Stage, key: str, partial: Path, lab: Lab) -> None:
    """Write the manifest and rename the folder: from here on the stage is complete."""
    from compress.lab import ELAPSED
    from compress.measure import processor

    leftovers = ("key.json", ELAPSED)
    write_json(
        partial / MANIFEST,
        {
            "stage": stage.name,
            "kind": stage.kind,
            "parent": experiment.recipe.parent(stage),
            "key": key,
            "config": stage.model_dump(mode="json", by_alias=True, exclude={"teacher"} if hasattr(stage, "teacher") else set()),
            "data": data_fingerprints(experiment, stage),
            "versions": versions(),
            "seed": experiment.recipe.seed,
            "seconds": round(lab.elapsed(), 2),
            "cpu": processor(),
            "threads": os.cpu_count(),
            "device": str(lab.device),
            "artefacts": lab.artefacts,
            "files": [file for file in files_in(partial) if file not in leftovers],
        },
    )
    for leftover in leftovers:
        (partial / leftover).unlink(missing_ok=True)
    set_aside(experiment.folder, stage.name)
    partial.rename(experiment.folder / stage.name)


def as_seen_by(recipe: Recipe, stage: Stage) -> Recipe:
    """The recipe with the augmentation of the pictures that the stage trains on."""
    return recipe.model_copy(update={"augment": recipe.training(stage)[1]})


def make_lab(experiment: Experiment, folder: Path, stage: Stage) -> Lab:
    """The surroundings of one stage, whose `train` split is what the stage trains on."""
    import torch

    from compress.lab import Lab

    own = getattr(stage, "data", None) is not None
    return Lab(
        as_seen_by(experiment.recipe, stage),
        folder,
        torch.device(device_name(experiment.device)),
        lambda teacher: open_teacher(experiment, teacher),
        experiment.quiet or not main_process(),
        {**experiment.splits, "train": train_split(experiment, stage)} if own else experiment.splits,
    )
