"""Recipes whose data are made of other data: keys of every depth are checked, overridden, stored and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.data.lines.lines import Lines
from compress.errors import CompressError
from compress.recipe import load

RECIPE = """
model: {name: angle}
data:
  format: turned
  of:
    format: lines
    from:
      format: icdar2015
      root: somewhere
stages:
  - train: {name: baseline, epochs: 1}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "angle.yml"
    path.write_text(RECIPE)
    return path


def test_a_key_of_any_depth_is_overridden(recipe):
    loaded = load(recipe, ["data.of.from.root=elsewhere", "data.of.damaged=skip"])
    assert isinstance(loaded.data.of, Lines)
    assert loaded.data.of.from_.root == Path("elsewhere")
    assert loaded.data.of.damaged == "skip"
    assert load(recipe, ["data.of={format: synthetic_lines, train: 7}"]).data.of.train == 7


def test_the_stored_recipe_is_the_same_recipe(recipe, tmp_path):
    loaded = load(recipe)
    (tmp_path / "again.yml").write_text(loaded.dump())
    again = load(tmp_path / "again.yml")
    assert again.data == loaded.data
    assert again.dump() == loaded.dump()


@pytest.mark.usefixtures("recipe")
def test_another_format_of_lines_replaces_the_one_below_whole(tmp_path):
    (tmp_path / "over.yml").write_text("extends: angle.yml\ndata: {of: {format: synthetic_lines, train: 7}}\n")
    assert load(tmp_path / "over.yml").data.of.model_dump(exclude_defaults=True) == {"format": "synthetic_lines", "train": 7}


@pytest.mark.parametrize(
    ("written", "wrong", "told"),
    [
        ("root: somewhere", "rot: somewhere", "line 9: unknown key 'data.of.from.rot'; did you mean 'root'"),
        ("from:", "form:", "line 7: unknown key 'data.of.form'; did you mean 'format'"),
        ("format: icdar2015", "format: icdar2013", "line 7: data.of.from: .*'icdar2013'.*'icdar2015'"),
        ("format: lines", "format: turned", "line 5: data.of: .*'turned'.*'lines'"),
        ("root: somewhere", "root: x\n      val_fraction: 2", "line 10: data.of.from.val_fraction: .*less than 1"),
        ("root: somewhere", "cache: true", "line 7: data.of.from.root: .*required"),
        ("model: {name: angle}", "model: {name: db}", "data of the format turned are for classification, but the model is for detection"),
    ],
)
def test_what_is_wrong_is_named_with_its_key_and_line(recipe, written, wrong, told):
    recipe.write_text(RECIPE.replace(written, wrong))
    with pytest.raises(CompressError, match=told) as caught:
        load(recipe)
    assert "\n" not in str(caught.value)
