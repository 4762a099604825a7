"""`compress init`: what it finds in a folder, and that the recipe that it writes can be run."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from compress import experiment
from compress.cli import app
from compress.errors import CompressError
from compress.init import budget_of, init, recognised
from compress.recipe import load as load_recipe

BOX = [[8, 8], [56, 8], [56, 24], [8, 24]]


def images(folder, names):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (64, 96, 3), np.uint8))


@pytest.fixture
def scenes(tmp_path):
    """Eight images in PaddleOCR's format."""
    names = [f"{number}.jpg" for number in range(8)]
    images(tmp_path / "scenes" / "train", names)
    words = json.dumps([{"transcription": "word", "points": BOX}])
    (tmp_path / "scenes" / "train_label.txt").write_text("".join(f"train/{name}\t{words}\n" for name in names))
    return tmp_path / "scenes"


@pytest.fixture
def words(tmp_path):
    """Eight images of a word each."""
    names = [f"{number}.jpg" for number in range(8)]
    images(tmp_path / "words", names)
    (tmp_path / "words" / "train.txt").write_text("".join(f"{name}\tword{place}\n" for place, name in enumerate(names)))
    return tmp_path / "words"


def write(data, out, **options):
    return init(data, out, **{"task": None, "start": "scratch", "latency": None, "runtime": "openvino:int8", **options})


def test_scenes_give_a_recipe_for_the_packaged_detector_with_a_budget(scenes, tmp_path):
    told = write(scenes, tmp_path / "small.yml", start="packaged", latency="10ms@320x480")
    assert told[0].endswith("7 train, 1 val images, format paddleocr, for detection.")
    recipe = load_recipe(tmp_path / "small.yml")
    stages = {stage.name: stage for stage in recipe.stages}
    assert list(stages) == ["start", "trained", "pruned", "distilled", "files", "int8", "files_int8"]
    target = stages["pruned"].target
    assert (target.latency, target.runtime, target.precision) == ("10ms", "openvino", "int8")
    assert tuple(recipe.latency.input) == (1, 3, 320, 480)
    assert recipe.evaluate.short_side == 320
    lines = experiment.dry_run(tmp_path / "small.yml", (), out=tmp_path / "run")
    assert any(line.startswith("trained: train from start: to do") for line in lines), lines


def test_words_give_a_recogniser_whose_alphabet_is_that_of_their_texts(words, tmp_path):
    write(words, tmp_path / "read.yml", task="recognition", runtime="onnxruntime:fp32")
    recipe = load_recipe(tmp_path / "read.yml")
    assert [stage.name for stage in recipe.stages] == ["trained", "files"]
    assert set("word") < set(recipe.model["alphabet"]["characters"]) < set("word01234567")


def test_what_could_be_of_two_tasks_is_asked_for(words, tmp_path):
    with pytest.raises(CompressError, match="for classification and for recognition; say which with --task"):
        write(words, tmp_path / "recipe.yml")
    assert not (tmp_path / "recipe.yml").exists()


def test_the_damage_of_the_nearest_format_is_told(scenes):
    (scenes / "train" / "3.jpg").write_bytes(b"no image")
    with pytest.raises(CompressError, match=r"cannot be read. As paddleocr: .*3\.jpg"):
        recognised(scenes, "detection")


def test_a_folder_of_no_known_format_is_refused_with_the_formats(tmp_path):
    with pytest.raises(CompressError, match=r"of no known format .*icdar2015.*docs/data.md"):
        recognised(tmp_path, "detection")
    with pytest.raises(CompressError, match="there is no folder"):
        recognised(tmp_path / "nowhere", None)


@pytest.mark.parametrize(
    ("latency", "runtime", "sentence"),
    [("fast", "openvino", "--latency: 'fast' is no budget"), ("0ms@640x640", "openvino", "is no budget"),
     (None, "phone", "--runtime: 'phone' is none")],
)  # fmt: skip
def test_budgets_that_cannot_be_read_are_refused(latency, runtime, sentence):
    with pytest.raises(CompressError, match=sentence):
        budget_of(latency, runtime)


def test_a_start_of_another_task_is_refused(words, scenes, tmp_path):
    with pytest.raises(CompressError, match="float weights for detection alone, none for recognition"):
        write(words, tmp_path / "recipe.yml", task="recognition", start="packaged")
    with pytest.raises(CompressError, match="is no checkpoint folder"):
        write(scenes, tmp_path / "recipe.yml", start=str(tmp_path))


def test_nothing_is_overwritten(scenes, tmp_path):
    (tmp_path / "recipe.yml").write_text("mine")
    result = CliRunner().invoke(app, ["init", "--data", str(scenes), "--out", str(tmp_path / "recipe.yml")])
    assert isinstance(result.exception, CompressError)
    assert (tmp_path / "recipe.yml").read_text() == "mine"
