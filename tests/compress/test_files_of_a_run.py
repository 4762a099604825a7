"""Every file that a run would open is looked at before any work, by `compress run --dry-run` too."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from compress.checkpoint import fresh, save
from compress.data.draw import draw_folder
from compress.errors import CompressError
from compress.experiment import dry_run
from compress.tasks import TASKS

MODEL = {"name": "db", "backbone": {"name": "mobilenet_v3_small", "width": 0.5}, "neck": {"name": "fpn", "channels": 16}}
FLOW = "{name: db, backbone: {name: mobilenet_v3_small, width: 0.5}, neck: {name: fpn, channels: 16}}"
RECIPE = f"""
model: {FLOW}
data: {{format: icdar2015, root: photos}}
evaluate: {{short_side: 64}}
latency: {{input: [1, 3, 64, 64], runtimes: []}}
stages:
  - train: {{name: baseline, epochs: 1, batch: 2, crop: 64}}
  - distill: {{name: taught, teacher: baseline, epochs: 1, batch: 2, crop: 64}}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe on four photographs, that can be run."""
    monkeypatch.chdir(tmp_path)
    draw_folder(tmp_path / "photos", "icdar2015", images=3, test=1, size=64, seed=0)
    (tmp_path / "r.yml").write_text(RECIPE)
    assert [line.rpartition(": ")[2] for line in dry_run("r.yml")] == ["to do", "to do"]
    return tmp_path


def refused(*overrides: str) -> str:
    with pytest.raises(CompressError) as told:
        dry_run("r.yml", overrides)
    return str(told.value)


@pytest.mark.usefixtures("recipe")
def test_weights_that_are_not_there():
    assert "stage 'baseline': There are no weights at resnet.pth" in refused("stages.baseline.weights=resnet.pth")


def test_weights_of_another_network(recipe):
    save_file({"conv1.weight": torch.zeros(4, 3, 3, 3)}, recipe / "other.safetensors")
    assert "other.safetensors is not for this backbone: it lacks" in refused("stages.baseline.weights=other.safetensors")


def test_weights_that_no_reader_knows(recipe):
    (recipe / "weights.pth").write_bytes(b"nothing")
    assert "weights.pth cannot be read as weights alone" in refused("stages.baseline.weights=weights.pth")


def test_a_checkpoint_of_another_network_to_start_from(recipe):
    save(fresh({**MODEL, "neck": {"name": "fpn", "channels": 24}}, TASKS["detection"].evaluate()), recipe / "start")
    assert "start holds the model" in refused("stages.baseline.weights=start")


def test_weights_that_fit_change_nothing_that_is_checked_after_them(recipe):
    save(fresh(MODEL, TASKS["detection"].evaluate()), recipe / "start")
    assert len(dry_run("r.yml", ["stages.baseline.weights=start"])) == 2


def test_a_teacher_that_is_not_there_or_is_damaged(recipe):
    assert "'big' is neither an earlier stage" in refused("stages.taught.teacher=big")
    save(fresh(MODEL, TASKS["detection"].evaluate()), recipe / "big")
    (recipe / "big" / "model.safetensors").write_bytes(b"nothing")
    assert "model.safetensors" in refused("stages.taught.teacher=big")


def test_an_image_of_the_test_part_that_cannot_be_read(recipe):
    (image,) = (recipe / "photos" / "test_images").iterdir()
    image.write_bytes(b"nothing")
    assert str(image.relative_to(recipe)) in refused()


@pytest.mark.usefixtures("recipe")
def test_a_list_of_validation_images_and_lexicons_that_are_not_there():
    assert "there is no file photos/held.txt" in refused("data.val_list=held.txt")
    assert "words.txt" in refused("data.lexicon=words.txt")


@pytest.mark.usefixtures("recipe")
def test_the_images_of_a_stage_that_has_its_own():
    assert "there is no folder elsewhere" in refused("stages.baseline.data={format: icdar2015, root: elsewhere}")


WORDS = """
model: {name: crnn, backbone: mobilenet_v3_small, alphabet: {file: characters.txt}}
data: {format: synthetic_lines, train: 4, val: 2, test: 2, fonts: fonts}
latency: {runtimes: []}
stages:
  - train: {name: baseline, epochs: 1, batch: 2}
"""


def test_dictionaries_and_fonts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yml").write_text(WORDS)
    assert "characters.txt" in refused()
    (tmp_path / "characters.txt").write_text("\n".join("abcdefghijklmnopqrstuvwxyz0123456789"))
    assert "fonts" in refused()
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "odd.ttf").write_bytes(b"nothing")
    assert "odd.ttf" in refused()


def test_a_list_of_lines_that_names_an_image_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").mkdir()
    cv2.imwrite(str(tmp_path / "words" / "a.png"), np.full((32, 96, 3), 200, np.uint8))
    (tmp_path / "words" / "train.txt").write_text("a.png\tword\nb.png\tother\n")
    text = WORDS.replace("{file: characters.txt}", "en").replace(
        "{format: synthetic_lines, train: 4, val: 2, test: 2, fonts: fonts}", "{format: lines, root: words}"
    )
    (tmp_path / "r.yml").write_text(text)
    assert "b.png" in refused()
