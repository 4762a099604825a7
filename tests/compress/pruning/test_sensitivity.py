"""The sweep over channel groups: points against doing it by hand, killed and resumed, in one process or two."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.checkpoint import save
from compress.cost import parameters
from compress.errors import CompressError
from compress.predictor import of_model
from compress.pruning import sensitivity
from compress.pruning.batch_norm import reestimate
from compress.pruning.groups import find_groups, widths
from compress.pruning.sensitivity import (
    POINTS,
    REESTIMATED,
    UNPRUNED,
    Bench,
    Settings,
    evaluation_batches,
    losses_of_score,
    map_losses,
    measure_points,
    sweep,
)
from compress.tasks import TASKS
from compress.tasks.detection import DETECTION
from compress.tasks.task import Metric

pytestmark = pytest.mark.slow

FEW = ("backbone.*", "neck.*")
POINT = {"scores": {"hmean": 0.5}, "params": 9, "macs": 9}
SETTINGS = Settings((0.3, 0.7), protect=FEW, images=4, loss_images=2, batches=1, batch=4)


@pytest.fixture
def bench(tiny_model, lab) -> Bench:
    return Bench(tiny_model, lab, SETTINGS)


def stand_in(_bench, places) -> list[dict]:
    """Points made in no time, for tests of what is measured and kept."""
    figures = [len(group or "") + (ratio or 0) for group, ratio in places]
    return [
        {"group": group, "ratio": ratio, "loss": figure, "scores": {"hmean": 1 / (1 + figure)}, "params": 9, "macs": 9}
        for (group, ratio), figure in zip(places, figures, strict=True)
    ]


def nothing(_done: int, _all: int) -> None:
    pass


def test_every_group_at_every_ratio_once(bench, tmp_path):
    found = sweep(bench, None, tmp_path / "out", 1, nothing)
    names = [group.name for group in find_groups(bench.model, "model", FEW)]
    assert [group["name"] for group in found["groups"]] == names
    assert len(names) == 4
    assert [(point["group"], point["ratio"]) for point in found["points"]] == [(name, ratio) for name in names for ratio in (0.3, 0.7)]
    assert all(point["params"] < found["baseline"]["params"] for point in found["points"])
    assert found["baseline"]["params"] == found["unpruned"]["params"] == parameters(bench.model.network)
    assert [found["unpruned"]] == measure_points(bench, [UNPRUNED])
    assert [found["baseline"]] == measure_points(bench, [REESTIMATED])
    last = found["points"][-3]
    assert [last] == measure_points(bench, [(last["group"], 0.7)]), "as if it were measured alone"
    assert found["images"] == 4
    assert (found["task"], found["main"]) == ("detection", "hmean")
    assert found["settings"] == bench.lab.recipe.evaluate.reported(bench.model.algorithm)


def test_a_point_leaves_the_model_as_it_was_and_prunes_one_group_alone(bench, monkeypatch):
    pruned = []
    monkeypatch.setattr(sensitivity, "reestimate_all", lambda networks, _batches: pruned.append(widths(networks[0])))
    before, state = widths(bench.model.network), copy.deepcopy(bench.model.network.state_dict())
    group = bench.groups[0]
    (point,) = measure_points(bench, [(group.name, 0.7)])
    changed = {name for name, width in pruned[0].items() if width != before[name]}
    assert changed == set(group.members)
    assert point["channels_left"] == pruned[0][group.name] == round(0.3 * group.channels)
    assert all(torch.equal(tensor, state[name]) for name, tensor in bench.model.network.state_dict().items())


def test_the_unpruned_point_is_the_model_itself_and_the_baseline_has_its_statistics_re_estimated(bench, lab):
    whole = Bench(bench.model, lab, replace(SETTINGS, images=None))
    before = copy.deepcopy(bench.model.network)
    point, base = measure_points(whole, [UNPRUNED, REESTIMATED])
    score = lab.evaluate(bench.model, "val")
    assert point["scores"] == pytest.approx(score, abs=1e-6)
    assert set(score) == {"precision", "recall", "hmean"}
    again = bench.model.with_network(before)
    reestimate(again.network, (images for images, _ in whole.training_batches))
    assert [base["loss"]] == pytest.approx(map_losses([again], whole.loss_batches), rel=1e-5)
    assert base["loss"] != pytest.approx(point["loss"], rel=1e-3)
    assert (base["params"], base["macs"]) == (point["params"], point["macs"])


def test_pruning_that_takes_nothing_costs_nothing(bench, monkeypatch):
    """Against the baseline, that is: the model as it is has other statistics."""
    monkeypatch.setattr(sensitivity, "rounded", lambda _wanted, channels, _step: channels)
    point, base = measure_points(bench, [(bench.groups[0].name, 0.3), REESTIMATED])
    assert {name: point[name] for name in base} == base


def test_pruning_that_inference_does_not_see_leaves_the_maps_as_the_baseline_has_them(bench):
    aside = next(group.name for group in bench.groups if group.name.startswith("threshold."))
    base, point = measure_points(bench, [REESTIMATED, (aside, 0.7)])
    assert point["scores"] == base["scores"]
    assert point["loss"] != base["loss"]


def test_a_lab_scores_as_many_images_as_it_is_given(bench, lab, monkeypatch):
    whole, first = lab.split("val"), Bench(bench.model, lab, Settings((0.5,), protect=FEW, images=2)).images
    assert lab.score(of_model(bench.model), whole) == lab.evaluate(bench.model, "val")
    judged = []

    def judge(pairs, evaluate):
        judged.append([truth for _, truth in pairs])
        return DETECTION.judge(pairs, evaluate)

    monkeypatch.setitem(TASKS, "detection", replace(DETECTION, judge=judge))
    found = lab.score(of_model(bench.model), first)
    assert [[truth.texts for truth in truths] for truths in judged] == [[whole[0].truth.texts, whole[1].truth.texts]]
    assert found.keys() == {"precision", "recall", "hmean"}


def test_the_loss_is_the_mean_over_images_of_the_algorithm_s_own(bench, lab):
    """Image by image through the top-level loss, for images of two sizes."""
    samples = [lab.split("val")[index] for index in range(3)]
    half = samples[1]
    samples[1] = replace(half, image=np.ascontiguousarray(half.image[:64]))
    (together,) = map_losses([bench.model], list(evaluation_batches(bench.model, samples, lab)))
    alone = [map_losses([bench.model], list(evaluation_batches(bench.model, [sample], lab))) for sample in samples]
    assert together == pytest.approx(np.mean(alone), rel=1e-5)


def test_what_a_point_loses_has_the_direction_of_the_main_metric():
    points = [{"scores": {"hmean": value}} for value in (0.25, 0.5, 0.75)]
    assert losses_of_score(points[1], points, DETECTION) == [0.25, 0, -0.25]
    wrong = replace(DETECTION, metrics=(Metric("error", "error", higher_is_better=False),), main="error")
    points = [{"scores": {"error": value}} for value in (0.25, 0.5, 0.75)]
    assert losses_of_score(points[1], points, wrong) == [-0.25, 0, 0.25]


def test_a_killed_sweep_goes_on_and_measures_nothing_twice(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "measure_points", stand_in)
    whole = sweep(bench, None, tmp_path / "whole", 1, nothing)
    lines = (tmp_path / "whole" / POINTS).read_text().splitlines(keepends=True)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / POINTS).write_text("".join(lines[:4]) + lines[4][:20])  # killed in the middle of a line
    measured = []

    def counted(bench, places):
        measured.extend(places)
        return stand_in(bench, places)

    monkeypatch.setattr(sensitivity, "measure_points", counted)
    assert sweep(bench, None, tmp_path / "killed", 1, nothing) == whole
    assert len(measured) == len(lines) - 4
    assert len(set(measured)) == len(measured)


def test_points_of_other_settings_are_not_taken(bench, lab, tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "measure_points", stand_in)
    sweep(bench, None, tmp_path / "out", 1, nothing)
    other = Bench(bench.model, lab, Settings((0.3,), protect=FEW, images=2, loss_images=2, batches=1, batch=4))
    found = sweep(other, None, tmp_path / "out", 1, nothing)
    assert found["images"] == 2
    first = json.loads((tmp_path / "out" / POINTS).read_text().splitlines()[0])
    assert first["settings"]["images"] == 2


def test_points_of_other_weights_are_not_taken(bench, lab, tmp_path, monkeypatch):
    losses = iter(range(100))

    def numbered(_bench, places):
        return [{**POINT, "group": group, "ratio": ratio, "loss": next(losses)} for group, ratio in places]

    monkeypatch.setattr(sensitivity, "measure_points", numbered)
    quick = Bench(bench.model, lab, Settings((0.5,), protect=FEW, images=1))
    first = sweep(quick, None, tmp_path, 1, nothing)
    assert sweep(quick, None, tmp_path, 1, nothing) == first
    with torch.no_grad():
        next(bench.model.network.parameters()).mul_(2)
    assert sweep(quick, None, tmp_path, 1, nothing)["unpruned"]["loss"] == 2 + len(first["points"])


def test_two_processes_measure_what_one_does(tiny_model, lab, tmp_path):
    settings = Settings((0.5,), protect=FEW, images=2, loss_images=2, batches=1, batch=4)
    save(tiny_model, tmp_path / "checkpoint")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = sweep(Bench(tiny_model, lab, settings), None, tmp_path / "one", 1, nothing)
    two = sweep(Bench(tiny_model, lab, settings), tmp_path / "checkpoint", tmp_path / "two", 2, nothing)
    torch.set_num_threads(threads)
    assert one == two


def test_a_fast_sweep_measures_no_scores(tiny_model, lab, tmp_path):
    found = sweep(
        Bench(tiny_model, lab, Settings((0.5,), protect=FEW, full=False, loss_images=2, batches=1, batch=4)), None, tmp_path, 1, nothing
    )
    assert all(point["scores"] is None and point["loss"] > 0 for point in found["points"])
    assert found["rank_correlation"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(("0.3,1.2", "taylor", "model"), "increasing shares"), (("0.6,0.3", "taylor", "model"), "increasing shares"),
     (("a", "taylor", "model"), "increasing shares"), (("0.3", "tailor", "model"), "did you mean 'taylor'"),
     (("0.3", "l1", "neck"), "--scope neck")],
)  # fmt: skip
def test_words_that_are_no_settings_are_refused(words, sentence):
    from compress.sensitivity import settings_from

    with pytest.raises(CompressError, match=sentence):
        settings_from(*words, None, False)


def test_points_of_another_augmentation_or_of_other_images_are_measured_anew(bench, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(sensitivity, "measure_points", lambda bench, places: measured.append(len(places)) or stand_in(bench, places))
    whole = replace(bench, settings=replace(SETTINGS, full=False))
    sweep(whole, None, tmp_path, 1, nothing)
    count = sum(measured)
    sweep(whole, None, tmp_path, 1, nothing)
    assert sum(measured) == count
    turned = whole.lab.recipe.model_copy(update={"augment": whole.lab.recipe.augment.model_copy(update={"rotate": 45.0})})
    sweep(replace(whole, lab=replace(whole.lab, recipe=turned)), None, tmp_path, 1, nothing)
    assert sum(measured) == 2 * count
    other = {**whole.lab.splits, "train": replace(whole.lab.split("train"), digest="other")}
    sweep(replace(whole, lab=replace(whole.lab, splits=other)), None, tmp_path, 1, nothing)
    assert sum(measured) == 3 * count
