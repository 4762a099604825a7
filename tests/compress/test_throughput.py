"""Throughput of training input: the rates by a clock that the test drives, and one real measurement that writes nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, count, islice, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from compress import throughput as work
from compress.cli import app
from compress.data.detection.augment import Augment
from compress.data.split import Annotation, Split
from compress.data.training import TrainingSet, batches
from compress.errors import CompressError
from compress.models.contract import Words
from compress.models.registry import build
from compress.report.plan import throughput_text

RECIPE = """
model: {name: db, backbone: mobilenet_v3_small, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 5, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
stages:
  - train: {name: baseline, epochs: 1, batch: 2, crop: 64, ema: 0.9, group_sparsity: 1.0e-4}
  - prune: {name: pruned, ratio: 0.5, batches: 1, batch: 2, crop: 64}
"""


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(work, "time", clock)
    return clock


def made(clock: Clock, seconds):
    """Batches of four images, each of which takes so long to make."""
    for duration in seconds:
        clock.spend(duration)
        yield {"image": torch.zeros(4, 1)}


def test_rates_of_input_step_and_both_by_a_known_clock(clock):
    def learn(loader) -> None:
        for _ in loader:
            clock.spend(0.3)

    assert work.rate(made(clock, repeat(0.1)), work.drain, 1) == pytest.approx(4 / 0.1)
    assert work.rate(repeat({"image": torch.zeros(4, 1)}), learn, 1) == pytest.approx(4 / 0.3)
    assert work.rate(made(clock, repeat(0.1)), learn, 1) == pytest.approx(4 / 0.4), "one after the other, in one process"


def test_what_was_made_in_advance_is_not_counted(clock):
    assert work.rate(made(clock, chain(repeat(0.0, 17), repeat(0.5))), work.drain, 17) == pytest.approx(4 / 0.5)
    assert work.rate(made(clock, chain([100.0], repeat(0.5))), work.drain, 1) == pytest.approx(4 / 0.5), "nor the time of the first batch"


def test_one_batch_is_measured_however_slow_it_is(clock):
    assert work.rate(made(clock, repeat(60.0)), work.drain, 1) == pytest.approx(4 / 60)


def test_batches_are_those_of_one_epoch_after_the_other():
    words = Annotation("one", Words([np.array([(5, 5), (20, 5), (20, 15), (5, 15)], np.float32)], np.array([False]), ["w"]))
    split = Split("train", [words] * 5, lambda index: np.full((40, 60, 3), 9 * index, np.uint8), "")
    samples = TrainingSet(split, replace(build("db"), targets=lambda _: {}), Augment(), (32, 32), 0)
    given = [batch["image"] for batch in islice(work.endless(samples, 2, 0), 5)]
    expected = [batch["image"] for epoch in islice(count(), 3) for batch in batches(samples, epoch, 2, 0)][:5]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(given, expected, strict=True))


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "small.yml"
    path.write_text(RECIPE)
    return path


def test_a_stage_is_measured_and_nothing_is_written(recipe, tmp_path, monkeypatch):
    steps, train_epoch = [], work.train_epoch
    monkeypatch.setattr(work, "SECONDS", 0.0)
    monkeypatch.setattr(work, "train_epoch", lambda run, *rest: (train_epoch(run, *rest), steps.append(run.step)))
    found = work.throughput(recipe, "baseline", out=tmp_path / "out", device="cpu")
    assert min(found[name] for name in ("pipeline", "step", "together")) > 0
    assert found["share"] > 0
    assert (found["crop"], found["batch"], found["workers"], found["device"]) == ((64, 64), 2, 0, "cpu")
    assert steps[-1] == 1 + 3 * 2, "a warm-up, then in each round a step on the batch that is kept and one on a new one"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "told"), [("basline", "did you mean 'baseline'"), ("pruned", "no train stage")])
def test_what_is_no_train_stage_is_refused(recipe, name, told):
    with pytest.raises(CompressError, match=told):
        work.throughput(recipe, name)


def test_the_command_prints_the_three_rates(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "SECONDS", 0.0)
    words = ["plan", str(recipe), "--throughput", "baseline", "--out", str(tmp_path / "out"), "--device", "cpu"]
    shown = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert all(part in shown for part in ("pipeline", "step", "together", "of the slower", "crop 64, batch 2"))


@pytest.mark.parametrize(("pipeline", "together", "waits"), [(100.0, 4.9, False), (100.0, 3.0, True), (4.0, 3.9, True)])
def test_input_that_holds_training_up_is_said(pipeline, together, waits):
    rates = {"pipeline": pipeline, "step": 5.0, "together": together, "share": together / min(pipeline, 5.0)}
    beside = {
        "stage": "a",
        "crop": (64, 64),
        "batch": 1,
        "workers": 0,
        "params": 1,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "cpu": "",
    }
    assert ("`workers`" in throughput_text({**rates, **beside})) == waits
