"""`compress sensitivity CHECKPOINT --data FORMAT --root DIR`: a checkpoint that lies in no experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.checkpoint import fresh, load, save, weights_digest
from compress.data.draw import draw_folder
from compress.data.formats import from_options, open_split
from compress.errors import CompressError
from compress.files import read_json
from compress.pruning.sensitivity import Settings
from compress.sensitivity import find_model, of_groups
from compress.tasks.detection import EvaluateDetection

MODEL = {"name": "db", "backbone": {"name": "mobilenet_v3_small", "width": 0.5}, "neck": {"name": "fpn", "channels": 16}}


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(fresh(MODEL, EvaluateDetection(short_side=64, bin_threshold=0.4)), tmp_path / "start")
    draw_folder(tmp_path / "photos", "icdar2015", images=4, test=0, size=64, seed=0)
    return tmp_path / "start"


@pytest.mark.slow
def test_points_are_measured_on_the_data_that_are_named(checkpoint, tmp_path):
    data = from_options("icdar2015", tmp_path / "photos")
    few = Settings((0.5,), "l1", protect=("backbone.*", "neck.*"), images=1, loss_images=1, batches=1, batch=2)
    _, where = of_groups(checkpoint, data=data, settings=few, workers=1)
    assert where.resolve() == tmp_path / "sensitivity"
    found = read_json(where / "sensitivity.json", dict)
    assert found["weights"] == weights_digest(load(checkpoint).network)
    assert (found["images"], found["settings"]["short_side"], found["settings"]["bin_threshold"]) == (1, 64, 0.4)


def test_the_settings_are_those_of_the_checkpoint_and_the_data(checkpoint, tmp_path):
    data = from_options("icdar2015", tmp_path / "photos")
    where, settings, folder = find_model(checkpoint, ["evaluate.short_side=96", "data.val_fraction=0.5"], data)
    assert (where, folder.resolve()) == (checkpoint, tmp_path)
    assert (settings.evaluate.short_side, settings.evaluate.settings(load(checkpoint).algorithm).bin_threshold) == (96, 0.4)
    assert settings.model["neck"] == MODEL["neck"]
    assert len(open_split(settings.data, "val", 0, quiet=True)) == 2


def test_data_that_do_not_fit_or_are_not_said_are_refused(checkpoint, tmp_path):
    with pytest.raises(CompressError, match="start lies in no experiment, so say what to measure on: --data icdar2015 --root DIR"):
        find_model(checkpoint, (), None)
    with pytest.raises(CompressError, match="is a model for detection, but data of the format labels are for classification"):
        find_model(checkpoint, (), from_options("labels", tmp_path))
    (tmp_path / "r.yml").write_text("")
    with pytest.raises(CompressError, match=r"--data: r\.yml has data of its own"):
        find_model(Path("r.yml"), (), from_options("icdar2015", tmp_path / "photos"))
