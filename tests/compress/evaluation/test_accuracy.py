"""Accuracy over labelled pictures: the counts, a made-up classifier whose answers are known, and what is refused."""

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
from compress.data.labels import open_labelled
from compress.errors import CompressError
from compress.evaluation.accuracy import shares_right
from compress.outside import allowing
from compress.tasks.detection import EvaluateDetection as Evaluate

MODULE = """
from dataclasses import dataclass

import torch
from torch import nn

from compress.models.contract import Algorithm, Classification


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
    return Algorithm("classification", MeanBrightness, None, None, decode, Thresholds, {}, labels=labels, mean=half, std=half)
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
        save(fresh({"name": "brightness:build"}, Evaluate(short_side=32)), folder / "model")
    yield folder / "model"
    sys.path.remove(str(folder))


@pytest.fixture
def lines(tmp_path) -> Path:
    """A folder of PaddleOCR's kind; its pictures are of several sizes."""
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


def test_a_classifier_is_evaluated_from_the_command_line(model, lines):
    words = ["--allow-module", "brightness", "eval", str(model), "--data", str(lines), "--device", "cpu"]
    found = json.loads(CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False).stdout)
    right = {name: (GREYS[name] > 128) == (label == "light") for name, label in LABELS.items()}
    assert sum(right.values()) == 4
    assert (found["accuracy"], found["right"], found["images"]) == (pytest.approx(0.8), 4, 5)
    for kind in ("dark", "light"):
        of_kind = [right[name] for name, label in LABELS.items() if label == kind]
        assert found["classes"][kind] == {"right": sum(of_kind), "images": len(of_kind)}
    shown = CliRunner().invoke(app, words, catch_exceptions=False).stdout.splitlines()
    assert [line.split() for line in shown[1:]] == [
        ["all:", "0.8000", "(4", "of", "5)"],
        ["dark:", "1.0000", "(2", "of", "2)"],
        ["light:", "0.6667", "(2", "of", "3)"],
    ]


def test_the_list_may_lie_apart_from_the_pictures(lines, tmp_path):
    apart = tmp_path / "apart" / "some.txt"
    apart.parent.mkdir()
    apart.write_text("\ufeffwords/b.png\tlight\r\n\nwords/a.png\tdark\r\n")
    split = open_labelled(apart, "test", ("light", "dark"), lines)
    assert [(sample.name, sample.truth.texts, sample.truth.polygons) for sample in split] == [
        ("words/b", ["light"], []),
        ("words/a", ["dark"], []),
    ]
    np.testing.assert_array_equal(split[0].image, np.full((32, 96, 3), 230))
    with pytest.raises(CompressError, match="there is no picture"):
        open_labelled(apart, "test", ())


def test_any_label_goes_where_none_are_named(lines):
    (lines / "val.txt").write_text("words/b.png\tStreet 7\n")
    assert open_labelled(lines, "val", ())[0].texts == ["Street 7"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("words/b.png light", "a path, a tab and the label are needed"),
        ("\tlight", "a path, a tab and the label are needed"),
        ("words/b.png\tgrey", "'grey' is none of the labels dark, light"),
        ("words/b.png\t", "'' is none of the labels dark, light"),
        ("words/gone.png\tlight", "there is no picture"),
        ("words/a.png\tlight", "was listed before, in line 1"),
    ],
)
def test_a_line_that_cannot_be_used_is_said_with_its_number(lines, line, told):
    (lines / "test.txt").write_text(f"words/a.png\tdark\n{line}\n")
    with pytest.raises(CompressError) as caught:
        open_labelled(lines, "test", ("dark", "light"))
    assert told in str(caught.value)
    assert f"{lines / 'test.txt'}:2: " in str(caught.value)
    assert "1 problems" in str(caught.value)


def test_lists_and_pictures_that_are_not_there_are_refused(lines, tmp_path):
    with pytest.raises(CompressError, match=r"holds no label file val\.txt"):
        open_labelled(lines, "val", ())
    with pytest.raises(CompressError, match=r"no label file at .*nowhere"):
        open_labelled(tmp_path / "nowhere", "test", ())
    (lines / "test.txt").write_text("\n")
    with pytest.raises(CompressError, match="lists no pictures"):
        open_labelled(lines, "test", ())
    (lines / "words" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(CompressError, match=r"cls_gt_test\.txt:1: the picture .*a\.png does not decode"):
        _ = open_labelled(lines / "cls_gt_test.txt", "test", ())[0]


@pytest.mark.parametrize("words", [{}, {"data": "lines", "tune": True}, {"data": "lines", "overrides": ["evaluate.short_side=64"]}])
def test_what_says_nothing_about_a_classifier_is_refused(model, words):
    with allowing("brightness"), pytest.raises(CompressError, match=r"names classes: .* --data LABELS\.txt"):
        assess(model, **words)
