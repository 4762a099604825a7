"""Accuracy over labelled images: the shares, a made-up classifier whose answers are known, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from compress.assess import assess
from compress.checkpoint import fresh, save
from compress.cli import app
from compress.errors import CompressError
from compress.evaluation.accuracy import shares_right
from compress.outside import allowing
from compress.tasks.classification import EvaluateClassification

MODULE = """
from dataclasses import dataclass

import torch
from torch import nn

from compress.models.contract import Algorithm, Classification, Input


class MeanBrightness(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        light = (8 * self.scale * images.mean((1, 2, 3))).sigmoid()
        return {"probability": torch.stack([light, 1 - light], 1)}


@dataclass(frozen=True)
class Thresholds:
    pass


def decode(outputs, *_):
    return [Classification(("light", "dark")[row.argmax()], float(row.max())) for row in outputs["probability"]]


def build() -> Algorithm:
    half, labels = (0.5,) * 3, ("dark", "light")
    wanted = Input(multiple=(1, 1), example=(32, 64), mean=half, std=half)
    return Algorithm("classification", MeanBrightness, None, None, decode, Thresholds, {}, labels=labels, input=wanted)
"""
GREYS = {"a.png": 20, "b.png": 230, "c.png": 90, "d.jpg": 250, "e.png": 101}  # 128 is as bright as dark
LABELS = {"a.png": "dark", "b.png": "light", "c.png": "light", "d.jpg": "light", "e.png": "dark"}  # c is mistaken


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A checkpoint of the made-up classifier, whose module is on Python's path."""
    folder = tmp_path_factory.mktemp("brightness")
    (folder / "brightness.py").write_text(MODULE)
    sys.path.append(str(folder))
    with allowing("brightness"):
        save(fresh({"name": "brightness:build"}, EvaluateClassification(size=(32, 96))), folder / "model")
    yield folder / "model"
    sys.path.remove(str(folder))


@pytest.fixture
def lines(tmp_path) -> Path:
    """A folder of PaddleOCR's kind; its images are of several sizes."""
    folder = tmp_path / "lines"
    (folder / "words").mkdir(parents=True)
    for step, (name, grey) in enumerate(GREYS.items()):
        cv2.imwrite(str(folder / "words" / name), np.full((32, 64 + 32 * (step % 2), 3), grey, np.uint8))
    (folder / "cls_gt_test.txt").write_text("".join(f"words/{name}\t{label}\n" for name, label in LABELS.items()))
    return folder


def test_accuracy_is_the_share_of_equal_labels_and_each_class_has_its_own():
    rng = np.random.default_rng(0)
    found, true = rng.integers(0, 3, (2, 200)).astype(str)
    score = shares_right(zip(found.tolist(), true.tolist(), strict=True))
    assert score["accuracy"] == pytest.approx((found == true).mean())
    of_each = {f"accuracy {label}": pytest.approx(((found == label) & (true == label)).sum() / (true == label).sum()) for label in "012"}
    assert {name: value for name, value in score.items() if name != "accuracy"} == of_each
    assert list(score) == ["accuracy", "accuracy 0", "accuracy 1", "accuracy 2"]


def test_a_class_that_was_found_but_never_true_has_no_share_and_no_images_no_accuracy():
    assert shares_right([("180", "0"), ("0", "0")]) == {"accuracy": 0.5, "accuracy 0": 0.5}
    assert shares_right([]) == {"accuracy": 0}


@pytest.mark.slow
def test_a_classifier_is_evaluated_from_the_command_line(model, lines):
    words = ["--allow-module", "brightness", "eval", str(model), "--data", "labels", "--root", str(lines), "--device", "cpu"]
    found = json.loads(CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False).stdout)
    right = {name: (GREYS[name] > 128) == (label == "light") for name, label in LABELS.items()}
    assert sum(right.values()) == 4
    assert (found["task"], found["images"], found["settings"]) == ("classification", 5, {"size": [32, 96]})
    assert found["scores"] == pytest.approx({"accuracy": 4 / 5, "accuracy dark": 1, "accuracy light": 2 / 3})
    shown = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert all(figure in shown for figure in ("80.00", "100.00", "66.67"))


def test_without_a_test_part_images_of_validation_are_evaluated(model, lines):
    with allowing("brightness"):
        assert assess(model, data="labels", root=lines, device="cpu")["split"] == "test"
        (lines / "cls_gt_test.txt").rename(lines / "val.txt")
        assert assess(model, data="labels", root=lines, device="cpu")["split"] == "val"


def test_labels_that_the_classifier_does_not_know_are_refused(model, lines):
    (lines / "cls_gt_test.txt").write_text("words/a.png\tdark\nwords/b.png\tgrey\n")
    told = r"words/b of the test split has the label 'grey', but the model knows dark, light"
    with allowing("brightness"), pytest.raises(CompressError, match=told):
        assess(model, data="labels", root=lines, device="cpu")


def test_what_says_nothing_about_a_classifier_is_refused(model, lines):
    with allowing("brightness"):
        with pytest.raises(CompressError, match="lies in no experiment, so say what to evaluate on"):
            assess(model, device="cpu")
        with pytest.raises(CompressError, match="--root says where the data of --data are; give both"):
            assess(model, root=lines, device="cpu")
        with pytest.raises(CompressError, match="is a model for classification, but data of the format icdar2015 are for detection"):
            assess(model, data="icdar2015", root=lines, device="cpu")
        (lines / "val.txt").write_text("words/a.png\tdark\n")
        with pytest.raises(CompressError, match=r"--tune: .* has no settings to choose"):
            assess(model, data="labels", root=lines, tune=True, device="cpu")
