from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

import compress
from compress import experiment
from compress.errors import CompressError
from compress.files import read_lines
from compress.recipe import load
from compress.training import trackers

RECIPE = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 8, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [], rounds: 3}
stages: [{train: {name: baseline, epochs: 2, batch: 4, crop: 64, evaluate_every: 2}}]
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "small.yml"
    path.write_text(RECIPE)
    return path


class Notebook:
    """accelerate's tracker interface, as far as it is used, writing what it is told into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, values: dict, step: int) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([step, values]) + "\n")

    def finish(self) -> None:
        with self.path.open("a") as file:
            file.write('"finished"\n')


@pytest.fixture
def notebook(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "notebook.jsonl"
    monkeypatch.setattr(trackers, "find_spec", lambda _: object())
    monkeypatch.setattr(trackers, "open_tracker", lambda *_: Notebook(path))
    return path


def test_every_epoch_is_logged_as_it_stands_in_the_metrics_and_no_key_depends_on_it(recipe, notebook, tmp_path):
    folder = tmp_path / "run"
    (row, *_) = compress.run(recipe, ["trackers=[tensorboard]"], out=folder, quiet=True)
    metrics = read_lines(folder / "baseline" / "metrics.jsonl")
    expected = [[entry["epoch"], {key: value for key, value in entry.items() if key != "epoch"}] for entry in metrics]
    assert read_lines(notebook, Any) == [*expected, "finished"]
    assert "val_hmean" in expected[1][1]
    assert "val_hmean" not in expected[0][1]
    assert experiment.dry_run(recipe, out=folder) == ["baseline: train: in the cache"], row.key


def test_a_tracker_is_finished_where_training_fails(notebook):
    def train():
        with trackers.tracking(["wandb"], Path("x"), "baseline", 0) as log:
            log({"epoch": 1, "loss": 0.5})
            raise CompressError("the loss is not finite")

    with pytest.raises(CompressError, match="not finite"):
        train()
    assert read_lines(notebook, Any) == [[1, {"loss": 0.5}], "finished"]


def test_another_process_than_the_main_one_opens_nothing(notebook, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with trackers.tracking(["wandb"], Path("x"), "baseline", 0) as log:
        log({"epoch": 1, "loss": 0.5})
    assert not notebook.exists()


def test_a_package_that_is_not_installed_is_one_sentence_before_any_work(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(CompressError, match="mlflow is not installed; `pip install mlflow`"):
        compress.run(recipe, ["trackers=[mlflow]"], out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_wrong_trackers_are_refused_with_their_line_and_right_ones_come_back(recipe, tmp_path):
    with pytest.raises(CompressError, match=r"no tracker 'tensorbord'.*tensorboard"):
        load(recipe, ["trackers=[tensorbord]"])
    recipe.write_text(RECIPE + "trackers: wandb\n")
    with pytest.raises(CompressError, match=r"small.yml, line 7: trackers must be a list"):
        load(recipe)
    again = tmp_path / "again.yml"
    again.write_text(load(recipe, ["trackers=[wandb, mlflow]"]).dump())
    assert load(again).trackers == ("wandb", "mlflow")
    recipe.write_text(RECIPE)
    assert load(recipe).trackers == ()


def test_tensorboard_reads_what_was_logged_and_a_resumed_run_takes_the_place_of_what_it_repeats(tmp_path):
    pytest.importorskip("tensorboard")
    from accelerate import PartialState

    PartialState(cpu=True)
    for start, loss in ((0, 3.0), (1, 2.0)):
        with trackers.tracking(["tensorboard"], tmp_path, "int8/control", start) as log:
            for epoch in range(start + 1, 4):
                log({"epoch": epoch, "loss": loss + epoch})
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(tmp_path / ".trackers" / "tensorboard" / "int8" / "control")).Reload()
    assert {event.step: event.value for event in read.Scalars("loss")} == {1: 4.0, 2: 4.0, 3: 5.0}


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_the_others_write_into_the_experiment_without_a_network(name, tmp_path, monkeypatch):
    pytest.importorskip(name)
    if name == "mlflow":
        pytest.importorskip("sqlalchemy")
    from accelerate import PartialState

    PartialState(cpu=True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with trackers.tracking([name], tmp_path / "run", "baseline", 0) as log:
        log({"epoch": 1, "loss": 0.5})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert list((tmp_path / "run" / ".trackers").glob({"mlflow": "mlflow.db", "wandb": "wandb/offline-run-*"}[name]))
