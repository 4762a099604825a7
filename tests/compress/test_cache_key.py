"""What a stage's key depends on: every setting of every stage and of the run is changed in turn, and held against a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from compress import session as sessions
from compress.data.split import Split
from compress.recipe import Recipe, load
from compress.session import Session, stage_key
from compress.stages import KINDS, Stage
from compress.training.settings import Schedule

RECIPE = """
seed: 3
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 4, val: 2, test: 2, size: 64}
evaluate: {short_side: 64, box_threshold: 0.5}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [torch], rounds: 5}
stages:
  - train: {name: parent, epochs: 1}
  - train: {name: other, epochs: 1}
"""
SCHEDULE = {"epochs": 3, "decay": "step", "milestones": [1.0]}
# One stage of each sort that reads something else, with every section that it can have.
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "train": ("train", {**SCHEDULE, "weights": "https://example.org/a.pth"}),
    "train on its own data": ("train", {"epochs": 3, "data": {"format": "synthetic"}}),
    "alphabet": ("alphabet", {"characters": "en"}),
    "simplify": ("simplify", {}),
    "prune": ("prune", {"ratio": 0.5}),
    "prune in steps": ("prune", {"ratio": 0.5, "steps": 2, "recover": SCHEDULE}),
    "prune by sensitivity": ("prune", {"ratio": 0.5, "allocation": "sensitivity"}),
    "prune to parameters": ("prune", {"target": {"params": "1M"}}),
    "prune to macs": ("prune", {"target": {"macs": "1M"}}),
    "prune to a latency": ("prune", {"target": {"latency": "1ms"}}),
    "prune within a drop": ("prune", {"target": {"max_drop": 0.1}, "recover": SCHEDULE}),
    "distill": ("distill", {**SCHEDULE, "teacher": ["parent"], "feature": {}, "mutual": {"peer": "other"}}),
    "ptq": ("quantize", {"mode": "ptq"}),
    "ptq within a drop": ("quantize", {"mode": "ptq", "max_drop": 0.1}),
    "qat": ("quantize", {"train": SCHEDULE}),
    "load": ("load", {"checkpoint": "parent"}),
    "export": ("export", {}),
    "assemble": ("assemble", {"detector": "parent", "recogniser": "other"}),
}
EXPECT = {"max_drop": 0.1, "min_score": 0.1, "max_latency_ms": 1.0, "max_bytes": 10}

# Another value of every setting. A field that is new is missing here, and fails the test until somebody says whether it moves the key.
OTHER_SCHEDULE = {
    "epochs": 4, "batch": 2, "crop": (96, 96), "optimizer": "sgd", "lr": 0.5, "momentum": 0.5, "weight_decay": 0.5, "decay": "cosine",
    "milestones": (2.0,), "gamma": 0.5, "warmup": 0.5, "ema": 0.5, "clip": 0.5, "sparsity": 0.5, "freeze_norms": 0.5,
    "freeze": ("backbone",), "precision": "bf16",
    "evaluate_every": 2, "workers": 7,
}  # fmt: skip
OTHER: dict[str, Any] = {
    **OTHER_SCHEDULE,
    **{f"{section}.{name}": value for section in ("recover", "train") for name, value in OTHER_SCHEDULE.items()},
    **{f"expect.{name}": 2 * value for name, value in EXPECT.items()},
    "name": "renamed", "from_": "other",
    "weights": "https://example.org/b.pth", "data": None, "temperature": 2.0, "branches": 4, "group_sparsity": 0.5,
    "ratio": 0.25, "scope": "backbone", "criterion": "l1", "allocation": "global", "round_to": 2, "max_ratio": 0.5, "protect": ("neck.*",),
    "steps": 3, "recover": None, "batches": 3, "target": None,
    "target.params": "2M", "target.size": "2MB", "target.macs": "2M", "target.latency": "2ms", "target.runtime": "torch",
    "target.precision": "int8", "target.max_drop": 0.2,
    "teacher": "other", "weight": 0.5, "response": None, "feature": None, "mutual": None,
    "response.maps": {"probability": 2.0}, "response.dilate": 2,
    "response.divergence": "dkd", "response.teacher_maps": {"probability": "binary"},
    "cache": True, "maps_precision": "bf16", "labels": "teacher",
    "feature.weight": 2.0, "feature.tau": 2.0, "feature.distance": "l2",
    "feature.layers": ("a",), "feature.teacher_layers": ("a",),
    "mutual.weight": 2.0, "mutual.maps": {"probability": 2.0}, "mutual.feature": 2.0,
    "mutual.peer": "fresh",
    "mode": "ptq", "train": None, "calibration": 3, "keep_float": ("a",), "max_drop": 0.2, "freeze_ranges": 0.5, "control": True,
    "equalize": True,
    "per_channel": False, "without_vnni": False,
    "activations": "symmetric", "ranges": "histogram", "percentile": 99.0, "bias_correction": False,
    "images": 3, "tolerance": 1e-3, "silent": True, "characters": {"characters": "ab"},
    "checkpoint": "other", "formats": ("onnx",), "check_images": 3,
    "detector": "other", "classifier": "parent", "recogniser": "parent", "format": "onnx",
}  # fmt: skip
# What changes no outcome.
STILL = {"name", "expect", "workers", "recover.workers", "train.workers", *(f"expect.{name}" for name in EXPECT)}

OF_RUN: dict[str, Any] = {
    "seed": 4,
    "model": {"name": "db", "backbone": "resnet18"},
    "data.size": 96,
    "augment.scales": (2.0,), "augment.cover": 0.5, "augment.min_side": 0.5, "augment.rotate": 1.0, "augment.flip": 1.0,
    "augment.tries": 1, "augment.brightness": 0.5, "augment.saturation": 0.1, "augment.contrast": 0.2, "augment.hue": 5.0,
    "augment.invert": 0.5, "augment.noise": 3.0, "augment.blur": 0.5,
    "evaluate.short_side": 96, "evaluate.protocol": "deteval", "evaluate.box_threshold": 0.7,
    "latency.input": (1, 3, 96, 96), "latency.threads": 2, "latency.runtimes": (), "latency.rounds": 6,
    "trackers": ("wandb",),
    "name": "renamed",
}  # fmt: skip
TRAINING = {"seed", "model", "augment", "evaluate"}
# Settings of the run, whole sections or one key, that must move the key; and the splits whose images must.
MOVES: dict[str, tuple[set[str], set[str]]] = {
    "train": (TRAINING, {"train", "val"}),
    "train on its own data": ({"seed", "model", "evaluate"}, {"own", "val"}),
    "prune": ({"seed", "model", "augment"}, {"train"}),
    "prune in steps": (TRAINING, {"train", "val"}),
    "prune by sensitivity": (TRAINING, {"train", "val"}),
    "prune to parameters": ({"seed", "model", "augment"}, {"train"}),
    "prune to macs": ({"seed", "model", "augment", "latency.input"}, {"train"}),
    "prune to a latency": ({"seed", "model", "augment", "latency.input", "latency.threads", "latency.rounds"}, {"train"}),
    "prune within a drop": (TRAINING, {"train", "val"}),
    "distill": (TRAINING, {"train", "val"}),
    "ptq": (set(), {"train"}),
    "ptq within a drop": ({"evaluate"}, {"train", "val"}),
    "qat": (TRAINING, {"train", "val"}),
    "alphabet": (set(), set()),
    "simplify": (set(), {"train", "val"}),
    "load": ({"model", "evaluate"}, set()),
    "export": (set(), {"val"}),
    "assemble": ({"evaluate"}, {"val"}),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "small.yml"
    path.write_text(RECIPE)
    return load(path)


def stage_of(sort: str) -> Stage:
    kind, values = STAGES[sort]
    return KINDS[kind](**{"name": "stage", "from_": "parent", "expect": EXPECT, **values})


def session_of(recipe: Recipe, stage: Stage, digests: dict[str, str] | None = None) -> Session:
    """A session whose images are known by name alone, and whose earlier stages by theirs."""
    names = {"train": "train", "val": "val", "test": "test", f"{stage.name}/train": "own"}
    splits = {place: Split(place, [], lambda _: None, (digests or {}).get(name, name)) for place, name in names.items()}
    recipe = recipe.model_copy(update={"stages": (*recipe.stages[:2], stage)})
    return Session(recipe, Path("a.yml"), Path("a"), (), splits=splits, keys={"parent": "key of parent", "other": "key of other"})


def key_of(recipe: Recipe, stage: Stage, digests: dict[str, str] | None = None) -> str:
    return stage_key(session_of(recipe, stage, digests), stage)


def fields(section: BaseModel, above: str = "") -> Iterator[str]:
    """Every field, as a dotted path; a section that is there as a whole, and every field in it."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        yield above + name
        if isinstance(value, BaseModel) and name != "data":
            yield from fields(value, f"{above}{name}.")


def changed(section: BaseModel, path: str, value: Any) -> BaseModel:
    """A copy with another value at a dotted path, unchecked: what is refused in a recipe must not be needed here."""
    name, _, rest = path.partition(".")
    return section.model_copy(update={name: changed(getattr(section, name), rest, value) if rest else value})


@pytest.mark.parametrize("sort", STAGES)
def test_every_setting_of_a_stage_moves_its_key_but_those_that_change_no_outcome(recipe, sort):
    stage = stage_of(sort)
    before, moved, unmoved = key_of(recipe, stage), set(), set()
    for path in fields(stage):
        new = OTHER.get(path) if path != "expect" else None
        assert path in OTHER or path == "expect", f"{stage.kind}.{path}: say in this test whether it moves the key"
        if new == attribute(stage, path):
            continue  # a section that this sort does not have
        (moved if key_of(recipe, changed(stage, path, new)) != before else unmoved).add(path)
    assert unmoved == STILL & set(fields(stage)), sort
    assert moved


def attribute(section: Any, path: str) -> Any:
    for name in path.split("."):
        section = getattr(section, name)
    return section


def test_every_field_of_every_kind_was_changed():
    stages = [stage_of(sort) for sort in STAGES]
    tried = {(stage.kind, path) for stage in stages for path in fields(stage) if OTHER.get(path) != attribute(stage, path)}
    assert {(kind, path.split(".")[0]) for kind, path in tried} == {
        (kind, name) for kind, stage in KINDS.items() for name in stage.model_fields
    }
    assert set(OTHER_SCHEDULE) == set(Schedule.model_fields)
    assert {path for _, path in tried} - {"expect"} == set(OTHER)


@pytest.mark.parametrize("sort", STAGES)
def test_settings_of_the_run_move_the_keys_of_the_stages_that_read_them(recipe, sort):
    stage, (wanted, _) = stage_of(sort), MOVES[sort]
    before = key_of(recipe, stage)
    moved = {path for path, value in OF_RUN.items() if key_of(changed_run(recipe, path, value), stage) != before}
    assert moved == {path for path in OF_RUN if path in wanted or path.split(".")[0] in wanted}


def changed_run(recipe: Recipe, path: str, value: Any) -> Recipe:
    if path == "evaluate.box_threshold":
        return recipe.model_copy(update={"evaluate": recipe.evaluate.with_settings({"box_threshold": value})})
    return changed(recipe, path, value)


def test_every_setting_of_the_run_was_changed(recipe):
    sections = {"augment": recipe.augment, "evaluate": recipe.evaluate, "latency": recipe.latency}
    for name, section in sections.items():
        assert {path.split(".")[1] for path in OF_RUN if path.startswith(f"{name}.")} >= set(type(section).model_fields), name
    assert {path.split(".")[0] for path in OF_RUN} == set(Recipe.model_fields) - {"stages"}


@pytest.mark.parametrize("sort", STAGES)
def test_images_move_the_keys_of_the_stages_that_see_them(recipe, sort):
    stage, (_, wanted) = stage_of(sort), MOVES[sort]
    before = key_of(recipe, stage)
    assert {name for name in ("train", "val", "test", "own") if key_of(recipe, stage, {name: "others"}) != before} == wanted


@pytest.mark.parametrize("sort", STAGES)
def test_parents_code_and_libraries_move_the_key(recipe, sort, monkeypatch):
    stage = stage_of(sort)
    before = key_of(recipe, stage)
    elsewhere = session_of(recipe, stage)
    elsewhere.keys["parent"] = "another"
    assert stage_key(elsewhere, stage) != before
    with monkeypatch.context() as patched:
        patched.setattr(type(stage), "version", stage.version + 1)
        assert key_of(recipe, stage) != before
    for name in ("torch", "torch-pruning", "nncf", "onnx", "openvino", "compress-ocr"):
        with monkeypatch.context() as patched:
            patched.setattr(sessions, "installed", lambda library, name=name: "another" if library == name else "1")
            found = key_of(recipe, stage)
            patched.setattr(sessions, "installed", lambda _: "1")
            assert (found != key_of(recipe, stage)) == (name in stage.libraries)


def test_every_kind_says_its_own_version_and_what_it_depends_on():
    for stage in KINDS.values():
        assert {"kind", "version"} <= vars(stage).keys()


@pytest.mark.parametrize("sort", ["distill", "load"])
def test_other_models_are_known_by_their_keys_wherever_they_lie(recipe, sort):
    stage = stage_of(sort)
    before = key_of(recipe, stage)
    elsewhere = session_of(recipe, stage)
    elsewhere.keys["parent" if sort == "load" else "other"] = "another"
    assert stage_key(elsewhere, stage) != before


def test_the_code_of_a_users_module_moves_the_keys_of_the_stages_that_build_its_model(recipe, monkeypatch):
    before = {sort: key_of(recipe, stage_of(sort)) for sort in STAGES}
    monkeypatch.setattr(sessions, "code_of", lambda _: "changed")
    assert {sort for sort in STAGES if key_of(recipe, stage_of(sort)) != before[sort]} == {
        sort for sort in STAGES if "model" in MOVES[sort][0]
    }
