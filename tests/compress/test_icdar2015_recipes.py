"""The recipes for ICDAR2015 make every row of the published tables, in the published sizes, and an int8 file of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compress.checkpoint import fresh, save
from compress.converters.families import FAMILIES
from compress.data.prepare import resize_short_side
from compress.errors import CompressError
from compress.models.registry import build
from compress.pruning.settings import limit
from compress.recipe import Recipe, load
from compress.training.weights import start_from

FOLDER = Path(__file__).parents[2] / "recipes" / "icdar2015"

# Row of the table: recipe, stage, bytes that its prune stage aims at, that stage's scope.
PUBLISHED = [
    ("db_mv3", "baseline", None, None),
    ("db_mv3_backbone", "finetuned_50", 1_900_000, "backbone"),
    ("db_mv3_backbone", "finetuned_60", 1_580_000, "backbone"),
    ("db_mv3_model", "finetuned_60", 1_420_000, "model"),
    ("db_mv3_model", "finetuned_65", 1_150_000, "model"),
    ("db_mv3_model", "distilled", None, None),
    ("db_mv3_model", "distilled_60", 1_420_000, "model"),
    ("db_mv3_model", "distilled_65", 1_150_000, "model"),
    ("ppocr_v3", "distilled", None, None),
    ("ppocr_v3", "distilled_60", 1_420_000, "model"),
    ("ppocr_v3", "distilled_65", 1_150_000, "model"),
]


# Recipe and stage -> passes, crop, optimiser, where its rate falls, by how much; at the test: long side, kernel area, area, score.
DETECTORS = {
    ("pse_resnet50", "baseline"): ((600, 640, "sgd", (200, 400, 500), 0.1), (2240, 5, 800, 0.93)),
    ("pan_resnet18", "baseline"): ((600, 640, "sgd", (200, 400, 500), 0.1), (1312, 4, 300, 0.9)),
    ("pan_resnet50", "teacher"): ((600, 640, "sgd", (200, 400, 500), 0.1), (1312, 4, 300, 0.9)),
    ("sast_resnet50", "baseline"): ((900, 512, "rmsprop", (300, 600, 800, 850), 0.3), (1536, None, 80, 0.5)),
}
NEEDS = {"pse_cpu": "pse_resnet18", "pan_cpu": "pan_resnet18", "sast_cpu": "sast_resnet18"}


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    return {path.stem: load(path) for path in FOLDER.glob("*.yml")}


@pytest.mark.parametrize(("recipe", "stage", "size", "scope"), PUBLISHED)
def test_a_published_row_has_its_size_and_an_int8_file(recipes, recipe, stage, size, scope):
    found = recipes[recipe]
    parent = found.parent(found.stage(stage))
    if size is None:
        assert parent in (None, "baseline")
    else:
        pruned = found.stage(parent)
        assert (pruned.kind, pruned.scope) == ("prune", scope)
        assert limit("size", pruned.target.size, 0) == size
        assert found.parent(pruned) == "baseline"
    int8 = [other for other in found.stages if other.kind == "quantize" and found.parent(other) == stage]
    assert len(int8) == 1
    assert [other.kind for other in found.stages if found.parent(other) == int8[0].name] == ["export"]


def test_all_of_db_are_judged_alike_and_learn_from_one_teacher(recipes):
    """Equal input, data and latency; thresholds but for PP-OCR's are the published ones."""
    published = {name: recipe for name, recipe in recipes.items() if recipe.model["name"] == "db" and "_cpu" not in name}
    assert {recipe.data.format for recipe in published.values()} == {"icdar2015"}
    assert {recipe.evaluate.short_side for recipe in published.values()} == {736}
    thresholds = {str(recipe.evaluate.model_extra) for name, recipe in published.items() if name != "ppocr_v3"}
    assert thresholds == {str({"bin_threshold": 0.5, "box_threshold": 0.6, "unclip_ratio": 2.0})}
    teachers = {name for recipe in published.values() for stage in recipe.stages for name in stage.other_models()}
    assert {Path(name).name for name in teachers} == {"db_resnet50.yml"}


def test_fine_tuning_and_distillation_have_equal_budgets(recipes):
    for name in ("db_mv3_model", "ppocr_v3"):
        for size in ("60", "65"):
            tuned, distilled = (recipes[name].stage(f"{kind}_{size}").model_dump() for kind in ("finetuned", "distilled"))
            shared = tuned.keys() & distilled.keys() - {"name"}
            assert {key: tuned[key] for key in shared} == {key: distilled[key] for key in shared}


def test_the_chain_from_ppocr_fits_what_convert_writes(recipes, tmp_path):
    family = next(family for family in FAMILIES if family.title == "PP-OCRv3 mobile detector")
    recipe = recipes["ppocr_v3"]
    converted = fresh(dict(family.config), recipe.evaluate)
    save(converted, tmp_path / "converted")
    started = start_from(fresh(recipe.model, recipe.evaluate), str(tmp_path / "converted"))
    assert started.config == recipe.model
    ours, theirs = started.network.state_dict(), converted.network.state_dict()
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    other = fresh({**recipe.model, "head_kernel": 7}, recipe.evaluate)
    with pytest.raises(CompressError, match="make them the same"):
        start_from(other, str(tmp_path / "converted"))


def test_synthetic_words_come_before_photographs(recipes):
    recipe = recipes["db_mv3_pretrained"]
    first, second = recipe.stages[:2]
    assert (recipe.training(first)[0].format, recipe.training(second)[0].format) == ("synthetic", "icdar2015")
    assert recipe.parent(second) == first.name


@pytest.mark.parametrize(("recipe", "stage"), DETECTORS)
def test_the_other_detectors_by_their_published_schedules_and_thresholds(recipes, recipe, stage):
    found = recipes[recipe]
    schedule, (long_side, kernel_area, area, score) = DETECTORS[recipe, stage]
    training = found.stage(stage)
    assert (training.epochs, training.crop, training.optimizer, training.milestones, training.gamma) == schedule
    assert (training.lr, training.decay, training.ema, training.sparsity) == (1.0e-3, "step", 0, 0)
    image = resize_short_side(np.zeros((720, 1280, 3), np.uint8), found.evaluate.short_side, (32, 32))
    assert image.shape[1] == long_side
    settings = found.evaluate.settings(build(found.model))
    assert (getattr(settings, "min_kernel_area", None), settings.min_area, settings.score_threshold) == (kernel_area, area, score)
    assert getattr(settings, "nms_threshold", 0.2) == 0.2


@pytest.mark.parametrize("recipe", ["pse_resnet50", "pan_resnet18", "sast_resnet50", *NEEDS])
def test_the_other_detectors_have_the_chain_of_the_synthetic_words(recipes, recipe):
    algorithm = recipe.split("_")[0]
    synthetic = load(FOLDER.parent / f"{algorithm}_resnet18.yml")
    found = recipes[recipe]
    assert [(stage.kind, stage.name, found.parent(stage)) for stage in found.stages] == [
        (stage.kind, stage.name, synthetic.parent(stage)) for stage in synthetic.stages
    ]
    assert (found.stage("pruned").ratio, found.data.format) == (0.6, "icdar2015")


@pytest.mark.parametrize(("recipe", "before"), NEEDS.items())
def test_the_small_chains_start_from_what_the_synthetic_words_leave(recipes, recipe, before):
    synthetic, first = load(FOLDER.parent / f"{before}.yml"), recipes[recipe].stages[0]
    assert first.weights == f"experiments/{synthetic.name}/{synthetic.stages[0].name}"
    assert recipes[recipe].model == synthetic.model
    assert recipes[recipe].stage("distilled").teacher == first.name


def test_the_readme_names_every_recipe_but_the_small_ones(recipes):
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in recipes if "_cpu" not in name and f"`{name}.yml`" not in told] == []
