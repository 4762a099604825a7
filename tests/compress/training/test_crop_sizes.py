"""Sizes of training images that do not fit the model are refused before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compress.before_work import check_crops, check_stages
from compress.checkpoint import fresh
from compress.errors import CompressError
from compress.models.contract import Input
from compress.models.registry import build
from compress.recipe import load
from compress.session import prepare
from compress.stages.train import Train
from compress.tasks.classification import EvaluateClassification

TINY = Path(__file__).parents[2] / "end_to_end" / "tiny.yml"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("stages.baseline.crop=100", r"stage 'baseline': crop: \[100, 100\] is no multiple of \[32, 32\].*give \[96, 96\]"),
        ("stages.finetuned.crop=[64, 96]", r"stage 'finetuned': crop: models for detection are trained on square images"),
        ("stages.pruned.crop=[96, 16]", r"stage 'pruned': crop: models for detection"),
        ("stages.pruned.crop=40", r"stage 'pruned': crop: \[40, 40\]"),
        ("stages.int8.train.crop=16", r"stage 'int8': crop: \[16, 16\].*give \[32, 32\]"),
    ],
)
def test_a_crop_that_does_not_fit_is_refused(tmp_path, override, told):
    session = prepare(TINY, [override], tmp_path / "out")
    with pytest.raises(CompressError, match=told):
        check_stages(session)
    assert not (tmp_path / "out").exists()


def test_every_crop_of_the_tiny_recipe_fits():
    recipe = load(TINY)
    algorithm = build(recipe.model)
    for stage in recipe.stages:
        check_crops(stage, algorithm)


def test_lines_are_no_squares_and_a_task_s_own_crop_must_fit_too():
    angle = fresh({"name": "angle", "width": 0.1}, EvaluateClassification()).algorithm
    check_crops(Train(name="a", epochs=1), angle)
    check_crops(Train(name="a", epochs=1, crop=[32, 320]), angle)
    with pytest.raises(CompressError, match=r"\[48, 192\] is no multiple of \[32, 128\].*give \[64, 256\]"):
        check_crops(Train(name="a", epochs=1), replace(angle, input=Input(multiple=(32, 128))))
