"""A recipe in the folder of its experiment, and the recipes of its teachers as a tree of the same: keys, states, and who is ready."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel

from compress import recipe_file
from compress.checkpoint import DESCRIPTION, QUANTIZATION, WEIGHTS, Model, fresh, load, load_untuned
from compress.data.fitting import open_fitting
from compress.errors import CompressError, suggestion
from compress.files import digest, fingerprint
from compress.lab import Lab
from compress.outside import build, code_of
from compress.pipeline import files_of
from compress.recipe import Recipe, experiment_name, load_named
from compress.recipe_file import SUFFIXES, recipe_and_stage
from compress.run_settings import RunSettings
from compress.stage_folder import DONE, TO_DO, key_of, state_of
from compress.stages import Stage

if TYPE_CHECKING:
    from compress.data.formats import DataConfig
    from compress.data.split import Split

RECIPE = "recipe.yml"  # in the experiment's folder: the recipe as it was run, every default filled in
# What changes no outcome, here and in the sections below. Data are in a key by what they hold, not by where they lie.
NOT_IN_KEY = {"name", "from_", "expect", "data", "workers"}


@dataclass
class Session:
    """A recipe in the folder of its experiment.

    path: of the recipe. overrides: `key=value`, as they were given. others: recipe, as a stage names it -> the session that gives its
    model. splits and keys: the data opened and the stages' keys made so far.
    """

    recipe: Recipe
    path: Path
    folder: Path
    overrides: tuple[str, ...]
    quiet: bool = True
    others: dict[str, Session] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def prepare(recipe: str | Path, overrides: Sequence[str] = (), out: str | Path | None = None, *, quiet: bool = True) -> Session:
    """A recipe, with those of its teachers, in their folders; nothing is run or written.

    out: the experiment's folder; `experiments/<recipe>` unless said. Teachers' experiments lie beside it, each in a folder of its own.
    Raises CompressError for a recipe that is wrong, and for one that needs its own model.
    """
    found: dict[Path, Session] = {}
    session = collect(Path(recipe), tuple(overrides), quiet, found, ())
    session.folder = folder_of(recipe, out)
    place_others(session, [its for its in found.values() if its is not session])
    return session


def collect(path: Path, overrides: tuple[str, ...], quiet: bool, found: dict[Path, Session], above: tuple[Path, ...]) -> Session:
    """The session of the recipe at `path`, not yet in its place; each recipe of the tree has one, which goes into `found`.

    above: the recipes that lead here, which must not be needed again.
    """
    here = path.resolve()
    if here in above:
        circle = " -> ".join(step.name for step in (*above[above.index(here) :], here))
        raise CompressError(f"{path} needs its own model to train it ({circle}); name another teacher, or a checkpoint folder.")
    if here not in found:
        recipe = load_named(path, overrides)
        session = Session(recipe, here, path.parent, overrides, quiet)
        for name, shares in others_of(recipe).items():
            other = Path(recipe_and_stage(name)[0])
            below = data_overrides(overrides, recipe.data, other) if shares else ()
            session.others[name] = collect(other, below, quiet, found, (*above, here))
        found[here] = session
    return found[here]


def others_of(recipe: Recipe) -> dict[str, bool]:
    """The other recipes that stages name, each once, and whether they are for the same data."""
    named = [(name, stage.others_share_data) for stage in recipe.stages for name in stage.other_models()]
    return {name: shares for name, shares in named if is_recipe(recipe, name)}


def place_others(root: Session, others: Sequence[Session]) -> None:
    """Give each of the other recipes a folder beside the root's, called as the recipe is; those of equal names are told apart."""
    taken = {root.folder.resolve().name}
    places = {os.path.relpath(its.path, root.path.parent): its for its in others}
    for place, its in sorted(places.items()):
        name = Path(its.recipe.name).name
        name = f"{name}-{fingerprint(place)[:8]}" if name in taken else name
        taken.add(name)
        its.folder = root.folder.parent / name


def folder_of(recipe: str | Path, out: str | Path | None) -> Path:
    """The experiment's folder of a recipe."""
    return Path(out) if out else Path("experiments") / experiment_name(Path(recipe))


def data_overrides(overrides: Sequence[str], data: DataConfig, other: Path) -> tuple[str, ...]:
    """Overrides of a recipe's data as the recipe at `other` has them: they hold for a teacher too, which learns from the student's data.

    Where one of the two makes its images of those below `of`, and the other does not, what is said of those below holds for both.
    """
    given = tuple(override for override in overrides if override.startswith(("data.", "data=")))
    here, there = made_of(data.model_dump()), made_of(recipe_file.read(other).values.get("data"))
    if here == there:
        return given
    ours, theirs = ("data" + ".of" * depth for depth in (here, there))
    return tuple(theirs + override.removeprefix(ours) for override in given if override.startswith((f"{ours}.", f"{ours}=")))


def made_of(data: object) -> int:
    """How many sections `of` lie in each other in a `data` section."""
    return 1 + made_of(data["of"]) if isinstance(data, Mapping) and "of" in data else 0


def is_recipe(recipe: Recipe, name: str) -> bool:
    """Whether what a stage of `recipe` names is another recipe, and no stage or checkpoint folder."""
    return stage_named(recipe, name) is None and Path(recipe_and_stage(name)[0]).suffix in SUFFIXES


def stage_named(recipe: Recipe, name: str) -> Stage | None:
    """The recipe's stage of that name; None for the name of a recipe or a checkpoint folder."""
    return next((stage for stage in recipe.stages if stage.name == name), None)


def tree(session: Session) -> Iterator[Session]:
    """All sessions that this one needs, each once, and it itself at last: each comes after those that it needs."""
    seen: dict[int, Session] = {}

    def walk(its: Session) -> None:
        for other in its.others.values():
            walk(other)
        seen.setdefault(id(its), its)

    walk(session)
    yield from seen.values()


# Data


def split_of(session: Session, name: str) -> Split:
    """A split of the recipe's data, opened once."""
    if name not in session.splits:
        session.splits[name] = opened(session, session.recipe.data, name)
    return session.splits[name]


def train_split(session: Session, stage: Stage) -> Split:
    """The images that a stage trains on: the recipe's, or its own, opened once."""
    own = stage.own_data()
    if own is None:
        return split_of(session, "train")
    name = f"{stage.name}/train"
    if name not in session.splits:
        session.splits[name] = opened(session, own, "train")
    return session.splits[name]


def opened(session: Session, data: DataConfig, name: str) -> Split:
    """A split of some data for the recipe's model."""
    return open_fitting(data, name, session.recipe.seed, build(session.recipe.model), session.quiet)


def data_fingerprints(session: Session, stage: Stage) -> dict[str, str]:
    """Split -> what identifies its images, of the splits that the stage's outcome depends on."""
    return {name: (train_split(session, stage) if name == "train" else split_of(session, name)).fingerprint() for name in stage.splits()}


# Keys


def cache_key(session: Session, name: str) -> str:
    """The key of the stage called `name`."""
    if name not in session.keys:
        session.keys[name] = stage_key(session, session.recipe.stage(name))
    return session.keys[name]


def stage_key(session: Session, stage: Stage) -> str:
    """sha256 over all that decides a stage's outcome."""
    parent = session.recipe.parent(stage)
    return fingerprint(
        {
            "parent": cache_key(session, parent) if parent else None,
            "kind": stage.kind,
            "version": stage.version,
            "libraries": versions(stage),
            "settings": identified(session, stage, said(stage)),
            "reads": settings_read(as_seen_by(session.recipe, stage), stage),
            "data": data_fingerprints(session, stage),
        }
    )


def said(section: BaseModel) -> dict[str, Any]:
    """What a section says that is not its default, those inside it too, but for what changes no outcome."""
    return without(section.model_dump(mode="json", exclude_defaults=True), NOT_IN_KEY)


def without(values: Any, names: set[str]) -> Any:
    """Nested mappings without the keys in `names`."""
    return {name: without(value, names) for name, value in values.items() if name not in names} if isinstance(values, dict) else values


def identified(session: Session, stage: Stage, values: Any) -> Any:
    """Settings of a stage with other models and initial weights by what identifies them, not by where they lie."""
    known = {name: model_key(session, name) for name in stage.other_models()}
    known |= {name: fingerprint([digest(file) for file in files_of(Path(name)) if file.is_file()]) for name in stage.exported_files()}
    weights = stage.initial_weights()
    return replaced(values, {**known, weights: weights_key(weights)} if weights else known)


def replaced(values: Any, known: Mapping[str, str]) -> Any:
    """Nested mappings and lists with the words in `known` replaced."""
    if isinstance(values, dict):
        return {name: replaced(value, known) for name, value in values.items()}
    if isinstance(values, list):
        return [replaced(value, known) for value in values]
    return known.get(values, values) if isinstance(values, str) else values


def settings_read(settings: RunSettings, stage: Stage) -> dict[str, Any]:
    """Those settings of the run that the stage reads. A model of a user's own module is known by its code too."""
    found: dict[str, Any] = {}
    for path in stage.reads():
        section, _, name = path.partition(".")
        value = getattr(settings, section)
        value = getattr(value, name) if name else value
        found[path] = said(value) if isinstance(value, BaseModel) else value
    return {**found, "code": code_of(settings.model)} if "model" in found else found


def versions(stage: Stage) -> dict[str, str | None]:
    """Packages whose version may change what the stage gives; None for one that is not installed."""
    return {name: installed(name) for name in stage.libraries}


def installed(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def weights_key(source: str) -> str:
    """What identifies the weights that a training starts from: those of a folder or a file by what they hold, of a URL by itself."""
    path = Path(source)
    return digest(path) if path.is_file() else checkpoint_key(path) if path.is_dir() else source


def checkpoint_key(folder: Path) -> str:
    """What identifies a checkpoint: its stage's key, or the bytes of one that no run of this workbench left."""
    files = [folder / name for name in (DESCRIPTION, WEIGHTS, QUANTIZATION)]
    return key_of(folder) or fingerprint([digest(file) for file in files if file.is_file()])


# Other models


def model_folder(session: Session, name: str) -> Path:
    """Where the model lies that a stage names: an earlier stage, the last model of a recipe, or a checkpoint folder."""
    if stage_named(session.recipe, name):
        return session.folder / name
    its = session.others.get(name)
    return its.folder / wanted_stage(its, name) if its else Path(name)


def wanted_stage(its: Session, name: str) -> str:
    """Which stage of another recipe is meant by what a stage names: its last model, or the one behind the colon.

    Raises CompressError for one that is not there or gives no model.
    """
    stage = recipe_and_stage(name)[1]
    models = [other.name for other in its.recipe.stages if other.gives_model]
    if stage is None:
        return its.recipe.last_model()
    if stage not in models:
        raise CompressError(f"{name}: {its.path.name} has no stage '{stage}' that gives a model{suggestion(stage, models)}")
    return stage


def model_key(session: Session, name: str) -> str:
    """What identifies the model that a stage names."""
    if stage_named(session.recipe, name):
        return cache_key(session, name)
    its = session.others.get(name)
    return cache_key(its, wanted_stage(its, name)) if its else checkpoint_key(Path(name))


def untrained(session: Session, name: str) -> Model:
    """The model that a stage names: that of a checkpoint folder, or, as yet without its weights, that of a recipe or of a stage."""
    stage = stage_named(session.recipe, name)
    if stage:
        return fresh(architecture(session.recipe, stage), session.recipe.evaluate)
    its = session.others.get(name)
    return fresh(architecture(its.recipe, its.recipe.stage(wanted_stage(its, name))), its.recipe.evaluate) if its else load(name)


def architecture(recipe: Recipe, stage: Stage | None) -> dict[str, Any]:
    """The `model` section of what a stage gives; that of the recipe before any stage."""
    if stage is None:
        return recipe.model
    return stage.architecture(before(recipe, stage))


def before(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """The `model` section of what a stage starts from."""
    parent = recipe.parent(stage)
    return architecture(recipe, recipe.stage(parent) if parent else None)


def is_ready(session: Session, name: str) -> bool:
    """Whether nothing must be run for the model that a stage names; earlier stages are not asked for."""
    its = session.others.get(name)
    return its is None or states(its)[wanted_stage(its, name)] == DONE


# States


def states(session: Session, redo_from: str | None = None) -> dict[str, str]:
    """Stage -> `in the cache`, `begun`, `damaged` or `to do`. Whatever waits for another stage is to do."""
    found: dict[str, str] = {}
    for stage in session.recipe.stages:
        others = stage.other_models()
        waits = any(found.get(name, DONE) != DONE for name in (session.recipe.parent(stage) or "", *others))
        waits = waits or not all(is_ready(session, name) for name in others)
        if stage.name == redo_from or waits:
            found[stage.name] = TO_DO
        else:
            found[stage.name] = state_of(session.folder, stage.name, cache_key(session, stage.name))
    return found


# Surroundings


def as_seen_by(recipe: Recipe, stage: Stage) -> Recipe:
    """The recipe with the augmentation of the images that the stage trains on, and with the model that it starts from."""
    return recipe.model_copy(update={"augment": recipe.training(stage)[1], "model": before(recipe, stage)})


def make_lab(session: Session, folder: Path, stage: Stage, device: str = "cpu", *, quiet: bool | None = None) -> Lab:
    """The surroundings of one stage, whose `train` split is what the stage trains on."""
    own = stage.own_data() is not None
    return Lab(
        as_seen_by(session.recipe, stage),
        folder,
        torch.device(device),
        lambda name: load_untuned(model_folder(session, name)),
        session.quiet if quiet is None else quiet,
        {**session.splits, "train": train_split(session, stage)} if own else session.splits,
        name=stage.name,
    )
