"""A train stage with images of its own: what it sees, what it is judged on, and what its key depends on."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import compress
from compress.errors import CompressError
from compress.files import read_json
from compress.plan import plan
from compress.recipe import load
from compress.session import cache_key, prepare, train_split

RECIPE = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 4, val: 2, test: 2, size: 64}
augment: {scales: [1.0], rotate: 3}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}
stages:
  - train: {name: pretrained, epochs: 1, batch: 4, crop: 64, data: {format: synthetic, train: 8, size: 96}}
  - train: {name: tuned, epochs: 1, batch: 4, crop: 64}
"""


def written(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "two_sets.yml"
    path.write_text(text)
    return path


def keys(path: Path, *overrides: str) -> dict[str, str]:
    session = prepare(path, overrides)
    return {stage.name: cache_key(session, stage.name) for stage in session.recipe.stages}


def real_images(folder: Path, count: int) -> Path:
    for name in ("train_images", "train_gts"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / "train_images" / f"img_{index}.png"), np.full((80, 90, 3), 10 * index, np.uint8))
        (folder / "train_gts" / f"gt_img_{index}.txt").write_text("10,10,60,10,60,30,10,30,word\n")
    return folder


def test_it_trains_on_its_own_and_is_judged_on_the_recipes(tmp_path, monkeypatch):
    from compress import lab

    seen, made = [], lab.TrainingSet

    def noted(split, algorithm, augment, size, seed):
        seen.append((len(split), split[0].image.shape[0], augment.rotate))
        return made(split, algorithm, augment, size, seed)

    monkeypatch.setattr(lab, "TrainingSet", noted)
    rows = compress.run(written(tmp_path), out=tmp_path / "out", quiet=True)
    tried_out_and_trained = 2
    assert seen == tried_out_and_trained * [(8, 96, 10.0), (4, 64, 3.0)], "images, their size, and the largest angle of the augmentation"
    assert {(row.split, row.images) for row in rows} == {("test", 2)}
    data = {name: read_json(tmp_path / "out" / name / "manifest.json")["data"] for name in ("pretrained", "tuned")}
    assert data["pretrained"]["val"] == data["tuned"]["val"]
    assert data["pretrained"]["train"] != data["tuned"]["train"]


def test_images_decide_the_key_wherever_they_lie(tmp_path):
    path = written(tmp_path)
    before = keys(path)
    fewer = keys(path, "stages.pretrained.data.train=6")
    assert before["pretrained"] != fewer["pretrained"]
    assert before["tuned"] != fewer["tuned"], "it starts from another model"
    real_images(tmp_path / "here", 5)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    here, there = (keys(path, f"stages.pretrained.data={{format: icdar2015, root: {tmp_path / name}}}") for name in ("here", "there"))
    assert here == there != before


def test_the_recipes_own_images_said_again_change_nothing(tmp_path):
    plain = RECIPE.replace("augment: {scales: [1.0], rotate: 3}\n", "").replace(", data: {format: synthetic, train: 8, size: 96}", "")
    path = written(tmp_path, plain)
    assert keys(path, "stages.pretrained.data={format: synthetic, train: 4, size: 64}") == keys(path)


def test_it_is_written_out_and_read_back(tmp_path):
    recipe = load(written(tmp_path))
    (tmp_path / "again").mkdir()
    assert load(written(tmp_path / "again", recipe.dump())) == recipe
    assert recipe.stage("pretrained").data.train == 8
    assert recipe.stage("tuned").data is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("size: 96", "sise: 96", ["line 8", "stages.pretrained.data.sise", "did you mean 'size'"]),
        ("size: 96", "size: 3", ["line 8", "stages.pretrained.data.size"]),
        ("data: {format: synthetic, train: 8", "data: {format: synthetik, train: 8", ["line 8", "did you mean 'synthetic'"]),
        ("data: {format: synthetic, train: 8", "data: {train: 8", ["line 8", "no data format 'None'"]),
        ("data: {format: synthetic, train: 8, size: 96}", "data: 4", ["line 8", "stages.pretrained.data"]),
    ],
)
def test_what_is_wrong_with_it_is_said_with_its_line(tmp_path, old, new, told):
    assert old in RECIPE
    with pytest.raises(CompressError) as caught:
        load(written(tmp_path, RECIPE.replace(old, new, 1)))
    for part in told:
        assert part in str(caught.value)


def test_a_folder_that_is_not_there_is_refused_before_any_work(tmp_path):
    with pytest.raises(CompressError, match=r"stage 'pretrained': .*nowhere"):
        compress.run(written(tmp_path), ["stages.pretrained.data={format: icdar2015, root: nowhere}"], out=tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_plan_counts_its_images(tmp_path, monkeypatch):
    monkeypatch.setattr("compress.plan.image_seconds", lambda *_: 1.0)
    monkeypatch.setattr("compress.plan.evaluation_seconds", lambda *_: 0.0)
    stages = plan(written(tmp_path), out=tmp_path / "none")["stages"]
    assert [stage["seconds"] for stage in stages] == [8, 4]


def test_its_images_are_opened_once(tmp_path):
    session = prepare(written(tmp_path))
    first, second = session.recipe.stages
    assert train_split(session, first) is train_split(session, first)
    assert train_split(session, second) is train_split(session, second)
    assert len(train_split(session, first)) == 8
