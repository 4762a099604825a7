"""`compress init`: what it finds in a folder, and that the recipe that it writes can be run."""

from __future__ import annotations

import json
import shlex
import shutil

import cv2
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import compress.init
from compress import experiment
from compress.checkpoint import fresh
from compress.cli import app
from compress.cost import parameters
from compress.errors import CompressError
from compress.init import budget_of, init, recognised, schedule
from compress.packaged import float_parent
from compress.pruning.allocation import least_important, ranked
from compress.pruning.budget import Cost, cost_range
from compress.pruning.groups import find_groups, remove_channels
from compress.pruning.settings import Pruning
from compress.recipe import load as load_recipe
from compress.runtimes.settings import Latency
from compress.tasks import TASKS

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


@pytest.fixture
def timed(monkeypatch):
    """The model takes 20 ms as it is, and 5 ms when as much is pruned as can be."""

    def measured(stage, _model, latency):
        assert stage.budget().kind == "latency"
        assert latency.threads == 3
        return Cost(20.0, "20ms"), Cost(5.0, "5ms")

    monkeypatch.setattr(compress.init, "cost_range", measured)


@pytest.mark.usefixtures("timed")
def test_scenes_give_a_recipe_for_the_packaged_detector_with_a_budget(scenes, tmp_path):
    told = write(scenes, tmp_path / "small.yml", start="packaged", latency="10ms@320x480", threads=3)
    assert told[0].endswith("7 train, 1 val images, format paddleocr, for detection.")
    assert told[1] == (
        "A call at 320x480 in openvino int8 on 3 thread(s) takes 20ms here as the model is, 5ms when as much is pruned as can be."
    )
    recipe = load_recipe(tmp_path / "small.yml")
    stages = {stage.name: stage for stage in recipe.stages}
    assert list(stages) == ["start", "trained", "pruned", "distilled", "files", "int8", "files_int8"]
    target = stages["pruned"].target
    assert (target.latency, target.runtime, target.precision) == ("10ms", "openvino", "int8")
    assert (tuple(recipe.latency.input), recipe.latency.threads) == ((1, 3, 320, 480), 3)
    assert recipe.evaluate.short_side == 320
    lines = experiment.dry_run(tmp_path / "small.yml", (), out=tmp_path / "run")
    assert any(line.startswith("trained: train from start: to do") for line in lines), lines


@pytest.mark.usefixtures("timed")
def test_a_budget_that_the_model_keeps_as_it_is_needs_no_pruning(scenes, tmp_path):
    write(scenes, tmp_path / "whole.yml", start="packaged", latency="25ms@320x480", threads=3)
    stages = {stage.name: stage for stage in load_recipe(tmp_path / "whole.yml").stages}
    assert list(stages) == ["start", "trained", "files", "int8", "files_int8"]


@pytest.mark.usefixtures("timed")
def test_a_budget_out_of_reach_is_refused_before_any_training(scenes, tmp_path):
    with pytest.raises(CompressError, match=r"--latency: 4ms cannot be reached. A call at 320x480 .* 5ms when as much is pruned as can be"):
        write(scenes, tmp_path / "small.yml", latency="4ms@320x480", threads=3)
    assert not (tmp_path / "small.yml").exists()


def test_no_scores_leave_less_than_the_range_of_a_target_says():
    config = {"name": "db", "backbone": {"name": "mobilenet_v3_small", "width": 0.5}, "neck": {"name": "fpn", "channels": 32}}
    model = fresh(config, TASKS["detection"].evaluate())
    stage = Pruning.model_validate({"target": {"params": "1k"}, "allocation": "global", "round_to": 8, "max_ratio": 0.5})
    whole, smallest = cost_range(stage, model, Latency(input=(1, 3, 64, 64)))
    assert whole.value == parameters(model.network), "the model itself is left as it is"
    groups = find_groups(model)
    scores = {group.name: torch.rand(group.channels, generator=torch.Generator().manual_seed(7)) for group in groups}
    remove_channels(model, groups, least_important(groups, scores, ranked(groups, scores, 1.0, 8, 0.5)))
    assert smallest.value == parameters(model.network) < whole.value


@pytest.mark.parametrize("images", [1, 40, 5_000, 1_000_000])
def test_a_schedule_sees_about_as_many_views_however_many_images_there_are(images):
    keys = yaml.safe_load("{" + schedule("detection", images, tuned=True, lr=1e-3) + "}")
    assert 4 <= keys["epochs"] <= 400
    assert keys["epochs"] in (4, 400) or keys["epochs"] * images == pytest.approx(2000, rel=0.02)
    assert keys["epochs"] / keys.get("evaluate_every", 1) <= 20


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


def test_a_line_that_lost_a_corner_is_damage_and_no_other_format(scenes, tmp_path):
    root = tmp_path / "photographs"
    (root / "train_gts").mkdir(parents=True)
    (scenes / "train").rename(root / "train_images")
    for number in range(8):
        (root / "train_gts" / f"gt_{number}.txt").write_text("1,1,40,1,40,20,1,20,word\n")
    assert recognised(root, None).format == "icdar2015"
    (root / "train_gts" / "gt_3.txt").write_text("1,1,40,1,40,20,EXIT\n")
    with pytest.raises(
        CompressError, match=r"As icdar2015: 1 problems .*gt_3\.txt:1: .* Repair them; `compress data check .*photographs --format icd"
    ):
        recognised(root, None)


def test_looking_for_the_format_warns_of_nothing(scenes, caplog):
    (scenes / "train_images").mkdir()
    (scenes / "train_gts").mkdir()
    for number in range(2):
        (scenes / "train_images" / f"{number}.jpg").write_bytes((scenes / "train" / f"{number}.jpg").read_bytes())
        (scenes / "train_gts" / f"gt_{number}.txt").write_text("no box\n")
    (scenes / "train_label.txt").unlink()
    with pytest.raises(CompressError, match="cannot be read"):
        recognised(scenes, "detection")
    assert not caplog.records


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
    (tmp_path / "det.onnx").write_bytes(b"")
    with pytest.raises(CompressError, match="PP-OCR's own files come in by `compress convert"):
        write(scenes, tmp_path / "recipe.yml", start=str(tmp_path / "det.onnx"))


def test_a_quantized_start_is_refused(scenes, tmp_path):
    shutil.copytree(float_parent("detection"), tmp_path / "int8")
    (tmp_path / "int8" / "quantization.json").write_text("{}")
    with pytest.raises(CompressError, match="int8 holds a quantized model; give the float one"):
        write(scenes, tmp_path / "recipe.yml", start=str(tmp_path / "int8"))


def test_the_next_commands_are_words_of_a_shell(scenes, tmp_path):
    told = write(scenes, tmp_path / "my recipe.yml")
    assert [shlex.split(line, comments=True)[2] for line in told[-2:]] == [str(tmp_path / "my recipe.yml")] * 2


def test_nothing_is_overwritten(scenes, tmp_path):
    (tmp_path / "recipe.yml").write_text("mine")
    result = CliRunner().invoke(app, ["init", "--data", str(scenes), "--out", str(tmp_path / "recipe.yml")])
    assert str(result.exception) == f"--out: {tmp_path / 'recipe.yml'} is there already; move it away, or name another one."
    assert (tmp_path / "recipe.yml").read_text() == "mine"
