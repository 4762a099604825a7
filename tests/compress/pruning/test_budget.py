"""Quantities, the search for a strength, and budgets that a prune stage must meet."""

from __future__ import annotations

import copy

import pytest
from pydantic import ValidationError

from compress.checkpoint import WEIGHTS, load
from compress.cost import macs, parameters
from compress.errors import CompressError
from compress.files import read_json
from compress.pruning.budget import STRONGEST, strongest_good, weakest_enough
from compress.pruning.settings import Target, limit
from compress.pruning.shrink import given_back
from compress.stages.prune import Prune
from compress.training.settings import Schedule

pytestmark = pytest.mark.slow

FEW = {"batches": 1, "batch": 4, "crop": 96}


@pytest.mark.parametrize(
    ("kind", "text", "number"),
    [("params", "0.35M", 350_000), ("params", "-40%", 600), ("size", "1.15MB", 1_150_000), ("size", "900 kB", 900_000),
     ("macs", "0.4G", 4e8), ("latency", "12ms", 12), ("latency", "0.5 s", 500), ("params", "120000", 120_000)],
)  # fmt: skip
def test_quantities(kind, text, number):
    assert limit(kind, text, 1000) == pytest.approx(number)


@pytest.mark.parametrize("text", ["12parsec", "-0.35M", "0", "-100%", "60%", "", "MB", "0.5"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValidationError, match="give a quantity such as"):
        Target(params=text)


def test_exactly_one_target():
    with pytest.raises(ValidationError, match="exactly one"):
        Target(params="0.3M", macs="-20%")
    with pytest.raises(ValidationError, match="exactly one"):
        Target()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [({}, "either ratio or target"), ({"ratio": 0.5, "target": {"macs": "-20%"}}, "either ratio or target"),
     ({"ratio": 0.5, "steps": 3}, "recover"), ({"target": {"max_drop": 0.1}}, "recover"),
     ({"ratio": 0.5, "recover": {"epochs": 1}}, "recover")],
)  # fmt: skip
def test_settings_that_do_not_fit_together_are_refused(keys, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Prune(**keys)


def test_bisection_finds_the_edge_from_both_sides():
    assert weakest_enough(lambda s: s >= 0.37, tries=20) == pytest.approx(0.37, abs=1e-4)
    assert strongest_good(lambda s: s <= 0.37, tries=20) == pytest.approx(0.37, abs=1e-4)
    assert weakest_enough(lambda _: False, tries=5) is None
    assert strongest_good(lambda _: False, tries=5) is None
    assert weakest_enough(lambda _: True, tries=30) == pytest.approx(0, abs=1e-6)
    assert strongest_good(lambda _: True, tries=30) == pytest.approx(STRONGEST, abs=1e-6)


@pytest.mark.parametrize("budget", range(30, 61, 3))
def test_groups_that_lose_channels_at_one_strength_do_so_one_after_another(budget):
    """Six groups go from 10 to 5 at once: as many keep their 10 as fit."""
    before, kept = dict.fromkeys("abcdef", 10), dict.fromkeys("abcdef", 5)
    found = given_back(kept, before, lambda widths: sum(widths.values()) <= budget)
    assert set(found.values()) <= {5, 10}
    assert budget - 5 < sum(found.values()) <= budget
    assert kept == dict.fromkeys("abcdef", 5)


@pytest.mark.parametrize(
    ("allocation", "target"),
    [("uniform", {"params": "-50%"}), ("uniform", {"macs": "-50%"}), ("global", {"size": "1MB"}), ("sensitivity", {"params": "-50%"})],
)
def test_a_budget_is_met_and_not_by_far(tiny_model, lab, allocation, target, monkeypatch):
    monkeypatch.setattr("compress.pruning.shrink.SENSITIVITY_RATIOS", (0.4, 0.8))
    monkeypatch.setattr("compress.pruning.shrink.available_threads", lambda _: 1)  # starting processes would take longer than the points
    # A pass over few groups is quick: those of the last blocks, which have most of the parameters.
    protect = ("backbone.blocks.[0-7].*", "backbone.stem*", "neck.*", "probability.*", "threshold.*") if allocation == "sensitivity" else ()
    from compress.pruning.shrink import shrink

    kind = next(iter(target))
    before = {"params": parameters(tiny_model.network), "macs": macs(tiny_model.network, lab.recipe.latency.input)}
    shrink(tiny_model, Prune(target=target, allocation=allocation, criterion="l1", max_ratio=0.95, protect=protect, **FEW), lab)
    made = load(lab.folder)
    cost = {
        "params": parameters(made.network),
        "macs": macs(made.network, lab.recipe.latency.input),
        "size": (lab.folder / WEIGHTS).stat().st_size,
    }
    wanted = limit(kind, target[kind], before.get(kind, 0))
    assert 0.9 * wanted < cost[kind] <= wanted


def test_a_budget_out_of_reach_is_refused_with_what_would_be_reached(tiny_model, lab):
    from compress.pruning.shrink import shrink

    with pytest.raises(CompressError, match=r"target params: 1k cannot be reached: the nearest that the stage allows is 0\.\d+M;"):
        shrink(tiny_model, Prune(target={"params": "1k"}, criterion="l1", **FEW), lab)


def test_several_steps_end_at_the_same_budget_and_train_between(tiny_model, lab):
    from compress.pruning.shrink import shrink

    schedule = Schedule(epochs=1, batch=8, crop=96)
    stage = Prune(name="p", target={"params": "-60%"}, criterion="l1", steps=2, recover=schedule, **FEW)
    wanted = 0.4 * parameters(tiny_model.network)
    shrink(tiny_model, stage, lab)
    assert 0.9 * wanted < parameters(load(lab.folder).network) <= wanted
    between = load(lab.folder / "step1")
    assert wanted < parameters(between.network) <= wanted / 0.4 * 0.4**0.5


def test_a_step_that_a_clock_chose_is_not_chosen_again(tiny_model, lab, monkeypatch):
    """The stop-watch is faster when the stage goes on: what was cut, and is being trained, must stay as it is."""
    from compress.pruning import shrink as shrinking

    speed, trained = [1.0], []

    def stopwatch(model, _latency, _runtimes):
        return {"openvino fp32": {"median": speed[0] * parameters(model.network) / 1000, "p90": 1000.0}}

    def recover(model, _stage, _lab, _name):
        trained.append(parameters(model.network))
        if len(trained) == 1:
            raise KeyboardInterrupt
        return model

    monkeypatch.setattr("compress.measure.checkpoint_latency", stopwatch)
    monkeypatch.setattr(shrinking, "recover", recover)
    schedule = Schedule(epochs=1, batch=8, crop=96)
    stage = Prune(name="p", target={"latency": "-50%", "runtime": "openvino"}, criterion="l1", steps=2, recover=schedule, **FEW)
    whole = copy.deepcopy(tiny_model.network)
    with pytest.raises(KeyboardInterrupt):
        shrinking.shrink(tiny_model, stage, lab)
    speed[0] = 0.5
    shrinking.shrink(tiny_model.with_network(whole), stage, lab)
    assert trained[0] == trained[1]


def test_latency_is_measured_on_every_candidate(tiny_model, lab, monkeypatch):
    """A stand-in for the stop-watch that tells the parameters in thousands: the search must meet the limit on it."""
    from compress.pruning.shrink import shrink

    def stopwatch(model, _latency, runtimes):
        assert runtimes == ["openvino"]
        return {"openvino fp32": {"median": parameters(model.network) / 1000, "p90": 1000.0}}

    monkeypatch.setattr("compress.measure.checkpoint_latency", stopwatch)
    shrink(tiny_model, Prune(target={"latency": "300ms"}, criterion="l1", **FEW), lab)
    assert 200 < parameters(load(lab.folder).network) / 1000 <= 300


def test_latency_of_int8_is_that_of_files_whose_layers_are_integers(tiny_model, lab, monkeypatch):
    from compress import measure
    from compress.exporters.inspect import inspect
    from compress.pruning.budget import cost_of

    seen = []

    def stopwatch(paths, _latency):
        seen.extend(inspect(path)["integer_convs"] for path in paths)
        return {"onnxruntime int8": {"median": 7.0, "p90": 8.5}}

    monkeypatch.setattr(measure, "file_latency", stopwatch)
    before = parameters(tiny_model.network)
    cost = cost_of(Target(latency="10ms", runtime="onnxruntime", precision="int8"), tiny_model, lab.recipe.latency)
    assert cost == (7.0, "7ms (nine of ten calls within 8.5ms)")
    assert seen[0] > 5
    assert not tiny_model.quantization
    assert parameters(tiny_model.network) == before


@pytest.mark.parametrize("keys", [{"params": "1M"}, {"latency": "9ms", "runtime": "torch"}])
def test_int8_is_of_a_latency_of_files(keys):
    with pytest.raises(ValidationError, match="precision: int8 is of a `latency`"):
        Target(precision="int8", **keys)


def test_as_much_is_pruned_as_the_drop_allows(tiny_model, lab, monkeypatch):
    """The main metric stands in as a function of the parameters left, so that the strongest allowed pruning is known."""
    from compress.lab import Lab
    from compress.pruning.shrink import shrink

    whole = parameters(tiny_model.network)

    def evaluate(_lab, model, _split):
        return {"precision": 0.0, "recall": 0.0, "hmean": parameters(model.network) / whole}

    monkeypatch.setattr(Lab, "evaluate", evaluate)
    stage = Prune(name="p", target={"max_drop": 0.5}, criterion="l1", recover=Schedule(epochs=1, batch=8, crop=96), **FEW)
    shrink(tiny_model, stage, lab)
    share = parameters(load(lab.folder).network) / whole
    assert 0.5 <= share < 0.6
    assert parameters(load(lab.folder / "raw").network) / whole == share
    found = read_json(lab.folder / "search.json")
    assert found["parent_val_score"] == 1
    assert [trial["drop"] for trial in found["tried"]] == pytest.approx([1 - trial["val_score"] for trial in found["tried"]])
