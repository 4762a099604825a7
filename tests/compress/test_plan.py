"""Plans: what they predict must be what a run leaves, and they must not train or write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compress import session
from compress.data.fitting import open_fitting
from compress.experiment import run
from compress.files import read_json
from compress.ledger import read
from compress.plan import CALIBRATION, GRADIENT, looking_seconds, plan, trains
from compress.report.plan import estimate_text
from compress.session import prepare

pytestmark = pytest.mark.slow

TINY = Path(__file__).parents[1] / "end_to_end" / "tiny.yml"


@pytest.fixture
def untimed(monkeypatch) -> None:
    """Timed steps are what takes long in a plan."""
    monkeypatch.setattr("compress.plan.image_seconds", lambda *_: 1.0)
    monkeypatch.setattr("compress.plan.evaluation_seconds", lambda *_: 1.0)
    monkeypatch.setattr("compress.plan.seconds_an_image", lambda *_: 1.0)


@pytest.fixture(scope="module")
def new(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("plan") / "new"
    made = plan(TINY, ["stages.pruned.ratio=0.4"], out=folder)
    assert not folder.exists()
    return made


@pytest.mark.usefixtures("untimed")
def test_channels_and_sizes_are_those_that_a_run_leaves(tiny_run, tmp_path):
    """Planned for an empty folder, against what the same recipe left in another."""
    made = plan(TINY, out=tmp_path / "empty")
    stages = {stage["name"]: stage for stage in made["stages"]}
    left = read_json(tiny_run / "pruned" / "channels.json")
    rows = {row.stage: row for row in read(tiny_run)}
    for group in stages["pruned"]["groups"]:
        assert left[group["name"]] == [group["before"], group["after"]]
    for name in ("baseline", "pruned", "finetuned"):
        assert (stages[name]["params"], stages[name]["macs"]) == (rows[name].params, rows[name].macs)
        assert stages[name]["bytes"] == pytest.approx(rows[name].bytes, rel=0.01)


@pytest.mark.usefixtures("untimed")
def test_what_is_done_is_known_and_takes_no_time(tiny_run):
    stages = {stage["name"]: stage for stage in plan(TINY, out=tiny_run)["stages"]}
    assert stages["baseline"]["state"] == stages["pruned"]["state"] == "in the cache"
    assert stages["baseline"]["seconds"] == 0


def test_every_layer_is_in_one_group_or_protected(new):
    from compress.checkpoint import fresh
    from compress.pruning.groups import widths
    from compress.recipe import load

    recipe = load(TINY)
    layers = widths(fresh(recipe.model, recipe.evaluate).network)
    groups = next(stage for stage in new["stages"] if stage["name"] == "pruned")["groups"]
    members = [name for group in groups for name in group["members"]]
    assert sorted(members) == sorted(layers)
    assert {group["name"] for group in groups if group["protected"]} == {"probability.up2", "threshold.up2"}


@pytest.mark.usefixtures("untimed")
def test_time_is_that_of_all_images_trained_on_and_evaluated(tmp_path):
    """24 training images an epoch, 6 validation images an evaluation, a second for each; a forward pass takes a second an image."""
    calibrated = ["stages.int8.mode=ptq", "stages.int8.train=", "stages.int8.control=false"]
    overrides = ["stages.baseline.epochs=300", "stages.baseline.evaluate_every=100", *calibrated]
    stages = {stage["name"]: stage["seconds"] for stage in plan(TINY, overrides, out=tmp_path / "none")["stages"]}
    assert stages["baseline"] == 300 * 24 + 3 * 6
    assert stages["int8"] == CALIBRATION * 6, "calibration images"
    assert stages["pruned"] == 2 * 2 * 8, "two looks at two batches of eight, for the statistics before and after"


@pytest.mark.usefixtures("untimed")
def test_importance_and_sensitivity_have_their_time(tmp_path, monkeypatch):
    from compress.checkpoint import fresh
    from compress.lab import Lab, no_teacher
    from compress.pruning.groups import find_groups
    from compress.recipe import load
    from compress.stages.prune import Prune

    monkeypatch.setattr("compress.plan.available_threads", lambda _: 2)
    recipe = load(TINY)
    model, lab = fresh(recipe.model, recipe.evaluate), Lab(recipe, tmp_path, torch.device("cpu"), no_teacher, quiet=True)
    few = {"ratio": 0.5, "batches": 2, "batch": 8}
    assert looking_seconds(model, Prune(criterion="taylor", **few), 0, lab, {}) == (2 + GRADIENT) * 2 * 8
    curved = Prune(criterion="bn_scale", allocation="sensitivity", **few)
    points = 2 + 4 * len(find_groups(model, curved.scope, curved.protect))
    assert looking_seconds(model, curved, 0, lab, {}) == 2 * 2 * 8 + points * (12 + 2 * 8) / 2


def test_timed_steps_give_a_time_for_all_that_trains(new):
    stages = {stage["name"]: stage for stage in new["stages"]}
    assert all(stages[name]["seconds"] > 0 for name in ("baseline", "finetuned", "distilled", "int8"))
    assert new["seconds"] == pytest.approx(sum(stage["seconds"] for stage in new["stages"]))


@pytest.mark.usefixtures("untimed")
def test_channels_that_weights_decide_are_not_made_up(tmp_path):
    made = plan(TINY, ["stages.pruned.allocation=global"], out=tmp_path / "none")
    stages = {stage["name"]: stage for stage in made["stages"]}
    assert all(group["after"] is None for group in stages["pruned"]["groups"] if not group["protected"])
    assert stages["finetuned"]["params"] is None
    assert made["at_most"]
    assert {name for name, stage in stages.items() if stage["at_most"]} == {"finetuned", "distilled", "int8"}
    known = plan(TINY, out=tmp_path / "none")
    assert not known["at_most"]
    assert made["seconds"] == known["seconds"], "a step takes a second here, whatever the network"


@pytest.mark.usefixtures("untimed")
def test_a_budget_that_can_be_counted_is_planned_too(tmp_path):
    made = plan(TINY, ["stages.pruned.ratio=null", "stages.pruned.target={params: -50%}"], out=tmp_path / "none")
    stages = {stage["name"]: stage for stage in made["stages"]}
    whole = stages["baseline"]["params"]
    assert 0.4 * whole < stages["pruned"]["params"] <= 0.5 * whole


def test_the_plan_is_printed_with_every_stage_and_group(new, capsys):
    from compress.report.plan import print_plan

    print_plan(new)
    shown = capsys.readouterr().out
    for stage in new["stages"]:
        assert stage["name"] in shown
    assert "backbone.blocks.3.project.0" in shown


def stage_entry(name: str, seconds: float, kind: str = "train") -> dict:
    return {"name": name, "kind": kind, "seconds": seconds, "epochs": 1200, "at_most": False}


def test_a_long_training_is_told_with_the_epochs_of_a_night():
    stages = [stage_entry("baseline", 990 * 3600.0), stage_entry("int8", 2 * 3600.0, "quantize")]
    made = {"seconds": 992 * 3600.0, "at_most": False, "stages": [*stages, {"name": "pruned", "kind": "prune", "seconds": 9.0}]}
    told = estimate_text(made)
    assert told.startswith("About 992.0 h of training on this machine")
    assert told.endswith("With -o stages.baseline.epochs=14 -o stages.int8.train.epochs=14 it would be 12.0 h.")


def test_nothing_is_told_where_nothing_is_trained():
    assert estimate_text({"seconds": 0.0, "at_most": False, "stages": []}) == ""


@pytest.mark.parametrize(("at_most", "begins"), [(False, "About 4 min of training"), (True, "Up to 4 min of training")])
def test_a_short_training_is_told_alone(at_most, begins):
    told = estimate_text({"seconds": 240.0, "at_most": at_most, "stages": [stage_entry("baseline", 240.0)]})
    assert told.startswith(begins)
    assert told.endswith("all else comes on top.")


def test_a_recipe_trains_where_a_stage_with_a_schedule_is_to_do(tmp_path):
    path = tmp_path / "r.yml"
    path.write_text("model: {name: db}\ndata: {format: synthetic}\nstages: [{load: {name: found, checkpoint: weights}}]\n")
    assert not trains(prepare(path, out=tmp_path / "out"))
    path.write_text("model: {name: db}\ndata: {format: synthetic}\nstages: [{train: {name: base, epochs: 1}}]\n")
    assert trains(prepare(path, out=tmp_path / "out"))


LONG_TEXTS = """
seed: 0
model: {name: crnn, backbone: {name: mobilenet_v3_small, width: 0.25}, sequence: {name: bilstm, hidden: 16, layers: 1}, alphabet: digits}
data: {format: synthetic_lines, train: 4, val: 2, test: 2, height: 32, characters: digits, words: 1, longest: 9}
evaluate: {height: 32, width: 32}
latency: {input: [1, 3, 32, 32], threads: 1, runtimes: []}
stages:
  - train: {name: baseline, epochs: 1, batch: 2, crop: [32, 16]}
  - prune: {name: pruned, ratio: 0.5, round_to: 4, batches: 1, batch: 2, crop: [32, 16]}
"""


@pytest.mark.usefixtures("untimed")
def test_a_run_with_a_guess_opens_each_split_once_and_tells_everything_once(tmp_path, monkeypatch, caplog, capsys):
    path = tmp_path / "long.yml"
    path.write_text(LONG_TEXTS)
    opened = []
    monkeypatch.setattr(session, "open_fitting", lambda data, name, *rest: opened.append(name) or open_fitting(data, name, *rest))
    run(path, out=tmp_path / "out", estimate=True)
    assert sorted(opened) == ["test", "train", "val"]
    assert [record.getMessage().endswith("left out of the loss.") for record in caplog.records] == [True]
    told = capsys.readouterr().err
    assert told.count("of training on this machine") == 1
    assert told.index("of training on this machine") < told.index("baseline: train")


def test_a_run_guesses_nothing_unless_asked_or_where_all_is_done(tmp_path, monkeypatch, capsys):
    path = tmp_path / "long.yml"
    path.write_text(LONG_TEXTS)
    monkeypatch.setattr("compress.plan.image_seconds", None)
    run(path, out=tmp_path / "out")
    run(path, out=tmp_path / "out", estimate=True)
    assert "of training on this machine" not in capsys.readouterr().err
