"""`compress sweep` without training: what is refused, what is run again, and how a sampler is asked and told."""

from __future__ import annotations

import importlib.util
import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from compress import sweep as command
from compress.errors import CompressError
from compress.sweeps import process, settings
from compress.sweeps.trials import Job, Trials, new_trial, trial_folder

RECIPE = """
model: {name: db, backbone: {name: mobilenet_v3_small, width: 0.5}, neck: {name: fpn, channels: 16}}
data: {format: synthetic, train: 8, val: 2, test: 2, size: 64}
evaluate: {short_side: 64}
latency: {input: [1, 3, 64, 64], threads: 1, runtimes: [torch], rounds: 3}
stages:
  - train: {name: baseline, epochs: 3, batch: 4, crop: 64}
  - prune: {name: pruned, ratio: 0.5, criterion: l1, batches: 1, batch: 2, crop: 64}
"""
with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
with_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes the job of a sweep of the small recipe whose other lines are given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yml").write_text(RECIPE)

    def make(text: str) -> Job:
        (tmp_path / "sweep.yml").write_text(f"recipe: small.yml\n{text}\n")
        return Job(settings.read(Path("sweep.yml")), (), tmp_path / "out", str(tmp_path / "out"), tmp_path)

    return make


def ended(job: Job, state: str = "finished", score: float = 0.5, size: int = 100, **point: float) -> dict:
    """A trial of the job that has ended, by a row of these figures."""
    row = {
        "experiment": "small", "stage": "pruned", "kind": "prune", "parent": None, "key": "a", "seed": 0, "task": "detection", "params": 1,
        "macs": 10, "bytes": size, "scores": {"precision": score, "recall": score, "hmean": score}, "main": "hmean", "delta": 0.0,
        "split": "test", "images": 2, "settings": {}, "runtime": "torch fp32", "latency_ms": {}, "artefact": "pruned", "seconds": 1.0,
    }  # fmt: skip
    found = new_trial(job, {key.replace("__", "."): value for key, value in point.items()}, None)
    return {**found, "state": state, "why": "", "rows": [row] if state == "finished" else []}


def test_a_missing_extra_is_one_sentence_before_any_work(job, monkeypatch, tmp_path):
    job("space:\n  stages.pruned.ratio: [0.5]")
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    with pytest.raises(CompressError, match=r"needs ray; install them with `pip install 'compress-ocr\[sweep\]'`"):
        command.sweep(Path("sweep.yml"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@with_ray
@pytest.mark.slow  # Ray is loaded
@pytest.mark.parametrize(
    ("address", "told"), [("127.0.0.1:1", "no Ray cluster answers there"), ("nowhere", "host:port"), ("127.0.0.1:x", "host:port")]
)
def test_a_cluster_that_is_not_there_is_one_sentence(job, tmp_path, address, told):
    job("space:\n  stages.pruned.ratio: [0.5]")
    with pytest.raises(CompressError, match=told):
        command.sweep(Path("sweep.yml"), out=tmp_path / "out", address=address)
    assert not (tmp_path / "out").exists()


def test_files_of_somebody_else_are_not_replaced(job, tmp_path, monkeypatch):
    job("space:\n  stages.pruned.ratio: [0.5]")
    monkeypatch.setattr(command, "check_installed", lambda _: None)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recommended.yml").write_text("mine")
    with pytest.raises(CompressError, match="no sweep has left it"):
        command.sweep(Path("sweep.yml"), out=tmp_path / "out")
    assert (tmp_path / "out" / "recommended.yml").read_text() == "mine"


def test_data_that_are_not_there_stop_the_sweep_before_any_trial(job, tmp_path, monkeypatch):
    job("space:\n  stages.pruned.ratio: [0.5]")
    monkeypatch.setattr(command, "check_installed", lambda _: None)
    with pytest.raises(CompressError, match="nowhere"):
        command.sweep(Path("sweep.yml"), ["data={format: icdar2015, root: nowhere}"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@with_ray
@pytest.mark.slow  # Ray is loaded
def test_trials_that_have_ended_are_not_run_again_and_failed_ones_where_that_is_asked(job, monkeypatch):
    from compress.sweeps import engine

    made = job("space:\n  stages.pruned.ratio: [0.3, 0.4, 0.5, 0.6]")
    made.folder.mkdir()
    known = [ended(made, state, stages__pruned__ratio=place) for place, state in enumerate(("finished", "failed", "running"))]
    ran: list[list[float]] = []
    monkeypatch.setattr(engine, "cluster", lambda *_: nullcontext())
    monkeypatch.setattr(
        engine, "run_listed", lambda _j, _t, todo, **_: ran.append([trial["values"]["stages.pruned.ratio"] for trial in todo])
    )
    monkeypatch.setattr(command, "time_trials", lambda *_: None)
    for retry, expected in ((False, [0.5, 0.6]), (True, [0.4, 0.5, 0.6])):
        Trials(made.folder / "sweep.jsonl", {trial["trial"]: trial for trial in known}).write()
        (made.folder / "sweep.json").write_text("{}")
        command.sweep(Path("sweep.yml"), out=made.folder, retry=retry)
        assert ran[-1] == expected


def test_the_reason_of_a_process_that_was_killed_is_told():
    assert "signal 9" in process.died(-9, Path("log"))
    assert "status 3" in process.died(3, Path("log"))


def test_epochs_are_found_where_the_stage_is_and_each_once(tmp_path):
    lines = [{"epoch": epoch, "lr": 0.1, "loss": 1.0, "val_x": epoch / 10} for epoch in (1, 2, 3)]
    (tmp_path / "b.partial").mkdir()
    (tmp_path / "b.partial" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    assert process.validations(tmp_path, "b", "val_x", 0) == [(1, 0.1), (2, 0.2)]
    (tmp_path / "b.partial").rename(tmp_path / "b")
    (tmp_path / "b" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert process.validations(tmp_path, "b", "val_x", 2) == [(3, 0.3)]
    assert process.validations(tmp_path, "c", "val_x", 0) == []


@with_ray
@pytest.mark.slow  # Ray is loaded
def test_each_epoch_is_reported_once(tmp_path, monkeypatch):
    from compress.sweeps import engine

    told: list[tuple[int, float]] = []
    monkeypatch.setattr(engine.tune, "report", lambda facts: told.append((facts["epoch"], facts["validation"])))
    monkeypatch.setattr(engine, "machine", lambda: "here")
    epochs = engine.Epochs(tmp_path, "b", "val_x")
    (tmp_path / "b.partial").mkdir()
    for done in (0, 1, 1, 3):
        lines = [{"epoch": epoch, "lr": 0.1, "loss": 1.0, "val_x": epoch / 10} for epoch in range(1, done + 1)]
        (tmp_path / "b.partial" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        epochs.report()
    assert told == [(1, 0.1), (2, 0.2), (3, 0.3)]


@pytest.mark.slow  # starts a process that loads torch
def test_a_trial_s_own_process_says_why_it_failed(job, tmp_path):
    made = job("space:\n  stages.pruned.ratio: [0.5, 2]")
    folder = trial_folder(made, "x")
    order = process.Order(
        recipe="small.yml", overrides=["stages.pruned.ratio=2"], folder=str(folder), store=str(tmp_path / "store"), device="cpu"
    )
    looks: list[int] = []
    end = process.run_alone(order, 1, tmp_path, lambda: looks.append(1))
    assert end["state"] == "failed"
    assert "less than 1, not 2" in end["why"]
    assert looks


@pytest.mark.slow  # starts a process that loads torch
def test_a_trial_s_process_ends_with_what_watches_it(job, tmp_path):
    made = job("space:\n  stages.pruned.ratio: [0.5]")
    folder = trial_folder(made, "x")
    order = process.Order(
        recipe="small.yml", overrides=["stages.baseline.epochs=9999"], folder=str(folder), store=str(tmp_path / "s"), device="cpu"
    )

    def stop() -> None:
        if (folder / "run" / "baseline.partial" / "training.pt").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run_alone(order, 1, tmp_path, stop)
    assert not (folder / "end.json").exists()
    assert not (folder / "run" / "baseline").exists()


# Samplers

SPACE = "search: tpe\ntrials: 8\nspace:\n  stages.pruned.ratio: {from: 0.1, to: 0.8, step: 0.1}\n"


def asking(job: Job, known: list[dict], together=None):
    """What stands between Ray and Optuna, with trials that have ended already."""
    from compress.sweeps.engine import Asking
    from compress.sweeps.results import judged

    job.folder.mkdir(exist_ok=True)
    trials = Trials(job.folder / "sweep.jsonl", {trial["trial"]: trial for trial in known})
    return Asking(job, trials, lambda trial: judged(job.sweep, trial), together, 2), trials


def told(searcher) -> list[tuple[dict, object, str]]:
    """What Optuna knows of trials that have ended: parameters, figures, state."""
    study = searcher.inner._ot_study
    return [(trial.params, trial.values, trial.state.name) for trial in study.trials if trial.state.is_finished()]


@with_ray
@with_optuna
@pytest.mark.slow  # Ray is loaded
def test_a_sampler_learns_of_earlier_trials_and_is_asked_first_for_those_that_were_cut_off(job):
    made = job(SPACE + "objectives: [score, bytes]")
    known = [
        ended(made, score=0.7, size=50, stages__pruned__ratio=3),
        ended(made, "failed", stages__pruned__ratio=1),
        ended(made, "running", stages__pruned__ratio=5),
    ]
    searcher, _ = asking(made, known)
    assert told(searcher) == [({"stages.pruned.ratio": 3}, [0.7, 50], "COMPLETE"), ({"stages.pruned.ratio": 1}, None, "FAIL")]
    first = searcher.suggest("ray1")["task"]
    assert first == {"trial": known[2]["trial"], "point": {"stages.pruned.ratio": 5}, "seed": None}


@with_ray
@with_optuna
@pytest.mark.slow  # Ray is loaded
@pytest.mark.parametrize("search", ["tpe", "nsga2"])
def test_no_point_is_run_twice_and_every_point_is_reached(job, search):
    made = job(SPACE.replace("tpe", search) + "objectives: [score]")
    searcher, trials = asking(made, [])
    seen = []
    for number in range(8):
        task = searcher.suggest(f"ray{number}")["task"]
        place = task["point"]["stages.pruned.ratio"]
        seen.append(place)
        trials.add(new_trial(made, task["point"], None))
        trials.note(task["trial"], **{**ended(made, score=place / 10, stages__pruned__ratio=place)})
        searcher.on_trial_complete(f"ray{number}", {"state": "finished"})
    assert sorted(seen) == list(range(8))
    assert searcher.suggest("ray8") == "FINISHED"


@with_ray
@with_optuna
@pytest.mark.slow  # Ray is loaded
def test_with_latency_trials_run_in_groups_which_are_timed_when_all_have_ended(job):
    made = job(SPACE + "objectives: [score]")
    timed: list[int] = []
    searcher, trials = asking(made, [], together=lambda: timed.append(len(trials.ended())))
    names = {}
    for number in (1, 2):
        task = searcher.suggest(f"ray{number}")["task"]
        names[number] = task
        trials.add(new_trial(made, task["point"], None))
    assert searcher.suggest("ray3") is None, "two run at a time"
    for number in (1, 2):
        place = names[number]["point"]["stages.pruned.ratio"]
        trials.note(names[number]["trial"], **{**ended(made, stages__pruned__ratio=place)})
        searcher.on_trial_complete(f"ray{number}", {"state": "finished"})
        if number == 1:
            assert (timed, told(searcher)) == ([], [])
            assert searcher.suggest("ray3") is None, "the group is not at its end"
    assert timed == [2]
    assert len(told(searcher)) == 2
    assert searcher.suggest("ray3")["task"]


@with_ray
@with_optuna
@pytest.mark.slow  # Ray is loaded
def test_a_row_that_no_trial_has_ends_the_search_with_its_sentence(job):
    made = job(SPACE + "objectives: [score]\nrow: pruned/other")
    searcher, _ = asking(made, [ended(made, stages__pruned__ratio=1)])
    assert "have no row 'pruned/other'" in str(searcher.fault)
    assert searcher.suggest("ray1") == "FINISHED"
