"""Teachers of a recipe's stages: other stages, checkpoint folders, and recipes, which are run first where they have not been.

A teacher's recipe is an experiment of its own, so running one and running its teachers call each other.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from compress.files import read_json
from compress.ledger import Row
from compress.progress import console
from compress.recipe import Recipe, experiment_name, fingerprint, load_named
from compress.stage_folder import MANIFEST
from compress.tasks import TASKS

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.experiment import Experiment
    from compress.stages import Stage


def stage_named(recipe: Recipe, name: str) -> Stage | None:
    """The recipe's stage of that name; None for the name of a recipe or a checkpoint folder."""
    return next((stage for stage in recipe.stages if stage.name == name), None)


def teacher_done(experiment: Experiment, teacher: str) -> bool:
    """Whether nothing needs training for a teacher; where it is a recipe, its checkpoint is noted."""
    from compress.experiment import prepare, states

    path = Path(teacher)
    if stage_named(experiment.recipe, teacher) or path.suffix not in (".yml", ".yaml"):
        return True
    its = prepare(path, data_overrides(experiment), experiment.folder.parent / Path(experiment_name(path)).name)
    last = [stage for stage in its.recipe.stages if stage.gives_model][-1]
    if states(its)[last.name] != "in the cache":
        return False
    experiment.teachers[teacher] = (its.folder / last.name, None)
    return True


def untrained(experiment: Experiment, name: str) -> Model:
    """The model of a checkpoint folder, or, as yet without its weights, that of a recipe or of a stage."""
    from compress.checkpoint import fresh
    from compress.checkpoint import load as load_checkpoint

    path, recipe = Path(name), experiment.recipe
    if stage_named(recipe, name):
        return fresh(recipe.model, recipe.evaluate)
    if path.suffix in (".yml", ".yaml"):
        teacher = load_named(path, data_overrides(experiment))
        return fresh(teacher.model, teacher.evaluate)
    return load_checkpoint(path)


def data_overrides(experiment: Experiment) -> tuple[str, ...]:
    """Overrides of the data: they hold for the teacher too, which learns from the student's data."""
    return tuple(override for override in experiment.overrides if override.startswith("data."))


def ready_teacher(experiment: Experiment, teacher: str) -> tuple[Path, Row | None]:
    """The checkpoint folder of a teacher, and its row where it is a recipe, which is run first if it has not been."""
    if stage_named(experiment.recipe, teacher):
        return experiment.folder / teacher, None
    if teacher not in experiment.teachers:
        path = Path(teacher)
        is_recipe = path.suffix in (".yml", ".yaml")
        experiment.teachers[teacher] = run_teacher(experiment, path) if is_recipe else (path, None)
    return experiment.teachers[teacher]


def run_teacher(experiment: Experiment, path: Path) -> tuple[Path, Row | None]:
    """Run a teacher's recipe in a folder beside this experiment's; the last stage that gives a model is the teacher."""
    from compress.experiment import run

    if not experiment.quiet:
        console.print(f"  teacher: {path.name}", markup=False)
    recipe = load_named(path, data_overrides(experiment))
    folder = experiment.folder.parent / Path(recipe.name).name
    again = experiment.time_again
    rows = run(path, data_overrides(experiment), out=folder, time_again=again, device=experiment.device, quiet=experiment.quiet)
    last = [stage for stage in recipe.stages if stage.gives_model][-1]
    return folder / last.name, next((row for row in rows if row.stage == last.name), None)


def open_teacher(experiment: Experiment, teacher: str) -> Model:
    """A teacher's model."""
    from compress.checkpoint import load as load_checkpoint

    return load_checkpoint(ready_teacher(experiment, teacher)[0])


def teacher_key(experiment: Experiment, teacher: str) -> str:
    """What identifies a teacher: its stage's key, or the bytes of a checkpoint that no run of this workbench left."""
    if teacher in experiment.keys:
        return experiment.keys[teacher]
    folder, _ = ready_teacher(experiment, teacher)
    manifest = read_json(folder / MANIFEST)
    return manifest["key"] if manifest else fingerprint([(folder / name).read_bytes().hex() for name in ("model.yml", "model.safetensors")])


def teacher_rows(experiment: Experiment, stage: Stage) -> list[Row]:
    """The rows of teachers that are recipes, each measured in its own experiment, for the table of the student, where each stands once.

    The first in the table is called `teacher`, any other `teacher/<its recipe>`.
    """
    rows: list[Row] = []
    for teacher in stage.other_models() if stage.others_have_rows else ():
        folder, row = ready_teacher(experiment, teacher)
        artefact = os.path.relpath(folder, experiment.folder)
        before = [known for known in (*experiment.rows, *rows) if known.kind == "teacher"]
        if row is None or any(known.artefact == artefact for known in before):
            continue
        name = f"teacher/{Path(teacher).stem}" if before else "teacher"
        delta = TASKS[row.task].gain(experiment.rows[0].scores, row.scores) if experiment.rows else 0.0
        rows.append(row.model_copy(update={"stage": name, "kind": "teacher", "delta": delta, "artefact": artefact}))
    return rows
