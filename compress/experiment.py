"""Runs a recipe: skips what is done, resumes what was cut off, measures what was made, and keeps the ledger.

A stage is worked on in `<name>.partial`, which is renamed when it is complete, so a folder without that ending is whole. A complete
stage whose key no longer fits is set aside in `.cache` and taken from there should its key come back: nothing is trained twice.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import ledger
from compress.data.formats import open_split
from compress.errors import CompressError, suggestion
from compress.files import read_json, write_json, write_text
from compress.ledger import Row
from compress.outside import allowing, code_of
from compress.processes import agreed, device_name, main_process, only_run_in, wait_for_everyone
from compress.progress import console
from compress.recipe import Recipe, experiment_name, fingerprint, load_named

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.data.split import Split
    from compress.lab import Lab
    from compress.stages import Stage

MANIFEST, ROWS = "manifest.json", "rows.json"
NOT_IN_KEY = {"name", "from_", "expect", "workers"}


@dataclass
class Experiment:
    """One recipe being run in one folder.

    keys: stage -> cache key, of the stages reached so far. rows: the ledger so far. splits: data opened so far. teachers: recipe or
    checkpoint folder, as a stage names it -> checkpoint folder and row, of those that are ready.
    """

    recipe: Recipe
    folder: Path
    overrides: tuple[str, ...]
    device: str
    quiet: bool
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
    device: str = "auto",
    quiet: bool = False,
) -> list[Row]:
    """Run the recipe at a path, with `key=value` overrides, and return the rows of its ledger.

    out: the experiment's folder; `experiments/<recipe>` unless said. redo_from: a stage to do again, with all that start from it.
    device: `auto`, `cpu` or `cuda`. Raises CompressError, with everything finished so far kept, for whatever a user can mend.
    """
    loaded = load_named(recipe, overrides)
    folder = folder_of(recipe, out)
    experiment = Experiment(loaded, folder, tuple(overrides), device, quiet)
    if redo_from:
        check_stage(loaded, redo_from)
    check_before_work(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    with only_run_in(folder):
        if main_process():
            write_text(folder / "recipe.yml", loaded.dump())
        redone: set[str] = set()
        for stage in loaded.stages:
            again = stage.name == redo_from or not redone.isdisjoint((loaded.parent(stage), *stage.other_models()))
            if again:
                redone.add(stage.name)
            do_stage(experiment, stage, again=again)
    return experiment.rows


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
            found[stage.name] = stage_state(experiment, stage)
    return found


def teacher_done(experiment: Experiment, teacher: str) -> bool:
    """Whether nothing needs training for a teacher; where it is a recipe, its checkpoint is noted."""
    path = Path(teacher)
    if stage_named(experiment.recipe, teacher) or path.suffix not in (".yml", ".yaml"):
        return True
    its = prepare(path, data_overrides(experiment), experiment.folder.parent / Path(experiment_name(path)).name)
    last = [stage for stage in its.recipe.stages if stage.gives_model][-1]
    if states(its)[last.name] != "in the cache":
        return False
    experiment.teachers[teacher] = (its.folder / last.name, None)
    return True


def stage_state(experiment: Experiment, stage: Stage) -> str:
    """`in the cache`, `begun` or `to do`."""
    key = experiment.keys[stage.name]
    folder = experiment.folder
    places = (folder / stage.name, set_aside_folder(folder, stage.name, key))
    if any((read_json(place / MANIFEST) or {}).get("key") == key for place in places):
        return "in the cache"
    return "begun" if read_json(folder / f"{stage.name}.partial" / "key.json") == key else "to do"


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
            for name in stage.other_models():
                check_named(recipe, stage, name)
                others[name] = others.get(name) or untrained(experiment, name)
            stage.check_others(model, others)
        except CompressError as error:
            raise CompressError(f"stage '{stage.name}': {error}") from None


def stage_named(recipe: Recipe, name: str) -> Stage | None:
    """The recipe's stage of that name; None for the name of a recipe or a checkpoint folder."""
    return next((stage for stage in recipe.stages if stage.name == name), None)


def check_named(recipe: Recipe, stage: Stage, name: str) -> None:
    """What a stage names must be a recipe, a checkpoint folder, or a stage before it that gives a model."""
    earlier = [other.name for other in recipe.stages[: recipe.stages.index(stage)] if other.gives_model]
    is_file = Path(name).suffix in (".yml", ".yaml") or (Path(name) / "model.yml").exists()
    if name not in earlier and (stage_named(recipe, name) or not is_file):
        told = "is neither an earlier stage that gives a model, a recipe (.yml), nor a checkpoint folder with a model.yml"
        raise CompressError(f"'{name}' {told}{suggestion(name, earlier)}")


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


def split_of(experiment: Experiment, name: str) -> Split:
    """A split of the recipe's data, opened once."""
    if name not in experiment.splits:
        experiment.splits[name] = open_split(experiment.recipe.data, name, experiment.recipe.seed, experiment.quiet)
    return experiment.splits[name]


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
        rows = stage_rows(experiment, stage, folder)
        experiment.rows += [*others, *rows]
        ledger.write(experiment.folder, experiment.rows)
        hold_to(stage, rows, experiment.rows[0])
    wait_for_everyone()


def stage_key(experiment: Experiment, stage: Stage) -> str:
    """sha256 over all that decides a stage's outcome."""
    recipe, parent = experiment.recipe, experiment.recipe.parent(stage)
    code = code_of(recipe.model)
    return fingerprint(
        {
            "parent": experiment.keys.get(parent) if parent else None,
            "kind": stage.kind,
            "config": stage.model_dump(mode="json", exclude=NOT_IN_KEY | {"teacher"}),
            "teacher": [teacher_key(experiment, name) for name in stage.other_models()] or None,
            "recipe": recipe.model_dump(mode="json", include={"seed", "model", "augment", "evaluate"}),
            "data": [split_of(experiment, name).fingerprint() for name in ("train", "val")],
            "versions": versions(),
            **({"code": code} if code else {}),
        }
    )


def versions() -> dict[str, str]:
    """Packages whose version may change what a stage gives."""
    return {name: version(name) for name in ("compress", "torch", "torch-pruning", "nncf")}


def find_cached(folder: Path, name: str, key: str) -> bool:
    """Whether the stage is complete under this key; one that was set aside is put back first."""
    if (read_json(folder / name / MANIFEST) or {}).get("key") == key:
        return True
    aside = set_aside_folder(folder, name, key)
    if not (aside / MANIFEST).exists():
        return False
    set_aside(folder, name)
    aside.rename(folder / name)
    return True


def set_aside_folder(folder: Path, name: str, key: str) -> Path:
    """Where a complete stage goes whose key no longer fits."""
    return folder / ".cache" / f"{name}-{key[:16]}"


def set_aside(folder: Path, name: str) -> None:
    """Move the stage's folder, if there is one, out of the way."""
    if not (folder / name).exists():
        return
    key = (read_json(folder / name / MANIFEST) or {}).get("key", "unknown")
    aside = set_aside_folder(folder, name, key)
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(exist_ok=True)
    (folder / name).rename(aside)


def work(experiment: Experiment, stage: Stage, key: str) -> None:
    """Apply the stage in its partial folder, resuming one of the same key, and rename it when it is complete."""
    from compress.checkpoint import load as load_checkpoint

    partial = experiment.folder / f"{stage.name}.partial"
    if main_process():
        prepare_partial(partial, key)
    wait_for_everyone()
    parent = experiment.recipe.parent(stage)
    model = load_checkpoint(experiment.folder / parent) if parent else None
    lab = make_lab(experiment, partial)
    if not experiment.quiet:
        console.print(f"  {stage.name}: {stage.kind}{' from ' + parent if parent else ''}", markup=False)
    if stage.every_process or main_process():
        stage.apply(model, lab)
    if main_process():
        finish(experiment, stage, key, partial, lab)
    wait_for_everyone()


def prepare_partial(partial: Path, key: str) -> None:
    """Keep an unfinished folder of the same key to resume in, empty any other."""
    if partial.exists() and read_json(partial / "key.json") != key:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / "key.json", key)


def finish(experiment: Experiment, stage: Stage, key: str, partial: Path, lab: Lab) -> None:
    """Write the manifest and rename the folder: from here on the stage is complete."""
    from compress.lab import ELAPSED
    from compress.measure import processor

    write_json(
        partial / MANIFEST,
        {
            "stage": stage.name,
            "kind": stage.kind,
            "parent": experiment.recipe.parent(stage),
            "key": key,
            "config": stage.model_dump(mode="json", by_alias=True, exclude={"teacher"} if hasattr(stage, "teacher") else set()),
            "data": {name: split_of(experiment, name).fingerprint() for name in ("train", "val")},
            "versions": versions(),
            "seed": experiment.recipe.seed,
            "seconds": round(lab.elapsed(), 2),
            "cpu": processor(),
            "threads": os.cpu_count(),
            "device": str(lab.device),
            "artefacts": lab.artefacts,
        },
    )
    for leftover in ("key.json", ELAPSED):
        (partial / leftover).unlink(missing_ok=True)
    set_aside(experiment.folder, stage.name)
    partial.rename(experiment.folder / stage.name)


def stage_rows(experiment: Experiment, stage: Stage, folder: Path) -> list[Row]:
    """The rows of a complete stage: those it has, if they were measured as the recipe asks, else new ones."""
    manifest = read_json(folder / MANIFEST)
    lab = make_lab(experiment, folder)
    key = fingerprint(
        {
            "stage": manifest["key"],
            "data": split_of(experiment, lab.report_split).fingerprint(),
            "latency": experiment.recipe.latency.model_dump(mode="json"),
        }
    )
    known = read_json(folder / ROWS) or {}
    if known.get("key") != key:
        measured = measure_all(experiment, stage, folder, manifest, lab)
        known = {"key": key, "rows": measured}
        write_json(folder / ROWS, known)
    base = experiment.rows[0].hmean if experiment.rows else main_row(stage, known["rows"])["hmean"]
    identity = {"experiment": experiment.recipe.name}
    return [Row.model_validate({**row, **identity, "hmean_delta": row["hmean"] - base}) for row in known["rows"]]


def measure_all(experiment: Experiment, stage: Stage, folder: Path, manifest: dict[str, Any], lab: Lab) -> list[dict[str, Any]]:
    """The row of every artefact. One with the very bytes of another, a last epoch that was the best, has the figures measured on those."""
    seen: dict[bytes, dict[str, Any]] = {}
    rows = []
    for artefact in manifest["artefacts"]:
        weights = folder / artefact["path"] / "model.safetensors"
        digest = hashlib.sha256(weights.read_bytes()).digest() if weights.exists() else None
        row = {**seen[digest], **row_identity(stage, artefact)} if digest in seen else None
        row = row or measure_artefact(experiment, stage, folder, manifest, artefact, lab)
        if digest:
            seen[digest] = row
        rows.append(row)
    return rows


def row_identity(stage: Stage, artefact: dict[str, Any]) -> dict[str, Any]:
    """What names one artefact's row, and the facts that its stage gave it."""
    suffix, path = artefact["suffix"], artefact["path"]
    facts = {key: value for key, value in artefact.items() if key not in ("suffix", "path")}
    return {"stage": f"{stage.name}/{suffix}" if suffix else stage.name, "artefact": os.path.normpath(f"{stage.name}/{path}"), **facts}


def main_row(stage: Stage, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the stage's own model, or the first of its files."""
    return next((row for row in rows if row["stage"] == stage.name), rows[0])


def measure_artefact(
    experiment: Experiment, stage: Stage, folder: Path, manifest: dict[str, Any], artefact: dict[str, Any], lab: Lab
) -> dict[str, Any]:
    """One row without what depends on the other rows."""
    from compress.checkpoint import load as load_checkpoint
    from compress.measure import measure

    parent = manifest["parent"]
    identity = row_identity(stage, artefact)
    if not experiment.quiet:
        console.print(f"  {identity['stage']}: measuring", markup=False)
    runtimes = () if artefact["suffix"] else experiment.recipe.latency.runtimes
    path = folder / artefact["path"]
    source = load_checkpoint(experiment.folder / parent) if path.is_file() else None
    return {
        "kind": stage.kind,
        "parent": parent,
        "key": manifest["key"],
        "seed": manifest["seed"],
        **identity,
        **measure(path, lab, runtimes=runtimes, network=source),
        "seconds": manifest["seconds"],
    }


def hold_to(stage: Stage, rows: Sequence[Row], first: Row) -> None:
    """Stop the run where a stage's own row, or one of its files', is not what the recipe expects."""
    expect = stage.expect
    if expect is None:
        return
    for row in [row for row in rows if row.stage == stage.name] or rows:
        slowest = max((values["median"] for values in row.latency_ms.values()), default=0.0)
        limits = [
            ("max_hmean_drop", first.hmean - row.hmean, expect.max_hmean_drop, 1),
            ("min_hmean", row.hmean, expect.min_hmean, -1),
            ("max_latency_ms", slowest, expect.max_latency_ms, 1),
            ("max_bytes", row.bytes, expect.max_bytes, 1),
        ]
        for name, value, limit, sign in limits:
            if limit is not None and sign * (value - limit) > 0:
                raise CompressError(f"'{row.stage}' was expected to keep {name} {limit}, but has {value:.4g}; its row is in the ledger.")


def make_lab(experiment: Experiment, folder: Path) -> Lab:
    """The surroundings of one stage."""
    import torch

    from compress.lab import Lab

    return Lab(
        experiment.recipe,
        folder,
        torch.device(device_name(experiment.device)),
        lambda teacher: open_teacher(experiment, teacher),
        experiment.quiet or not main_process(),
        experiment.splits,
    )


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
    if not experiment.quiet:
        console.print(f"  teacher: {path.name}", markup=False)
    recipe = load_named(path, data_overrides(experiment))
    folder = experiment.folder.parent / Path(recipe.name).name
    rows = run(path, data_overrides(experiment), out=folder, device=experiment.device, quiet=experiment.quiet)
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
    for teacher in stage.other_models():
        folder, row = ready_teacher(experiment, teacher)
        artefact = os.path.relpath(folder, experiment.folder)
        before = [known for known in (*experiment.rows, *rows) if known.kind == "teacher"]
        if row is None or any(known.artefact == artefact for known in before):
            continue
        name = f"teacher/{Path(teacher).stem}" if before else "teacher"
        delta = row.hmean - experiment.rows[0].hmean if experiment.rows else 0.0
        rows.append(row.model_copy(update={"stage": name, "kind": "teacher", "hmean_delta": delta, "artefact": artefact}))
    return rows
