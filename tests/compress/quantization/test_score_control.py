"""The fewest layers in float that keep a drop of the main metric, found on models whose culprits are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compress.errors import CompressError
from compress.files import read_json
from compress.quantization import score_control
from compress.quantization.nncf_torch import layer_quantizers
from compress.quantization.score_control import fewest_good
from compress.stages.quantize import Quantize
from compress.tasks import TASKS
from compress.tasks.detection import DETECTION
from compress.tasks.task import Metric

pytestmark = pytest.mark.slow


def ptq(**settings) -> Quantize:
    return Quantize(name="int8", mode="ptq", calibration=3, **settings)


@pytest.mark.parametrize("culprits", [set(), {4}, {2, 5}, {1, 3, 6}])
def test_the_culprits_and_no_others_stay_float(brightness, culprits):
    model, lab = brightness(culprits)
    example = next(iter(model.network.parameters())).new_zeros(1, 3, 32, 32)
    result = ptq(max_drop=0.0).apply(model, lab)
    layers = set(layer_quantizers(result.network, example))
    assert layers == {f"layers.{index}" for index in range(7) if index not in culprits}
    assert lab.evaluate(result, "val")["hmean"] == 1
    report = read_json(lab.folder / "score_control.json")
    assert set(report["kept_float"]) == {f"layers.{index}" for index in culprits}
    assert (report["float_score"], report["score"], report["max_drop"]) == (1, 1, 0)
    counts = [trial["kept_float"] for trial in report["tried"]]
    assert counts[:2] == ([0, 1] if culprits else [0])
    assert len(counts) == len(set(counts)) <= 5
    assert {count for count, trial in zip(counts, report["tried"], strict=True) if trial["score"] == 1} == {
        count for count in counts if count >= len(culprits)
    }
    assert lab.artefacts == [{"suffix": "", "path": ".", "score_control": report}]


def test_a_metric_of_which_less_is_better_is_kept_low(brightness, monkeypatch):
    def judge(pairs, evaluate):
        return {"missed": 1 - DETECTION.judge(pairs, evaluate)["hmean"]}

    missed = Metric("missed", "missed %", higher_is_better=False)
    monkeypatch.setitem(TASKS, "detection", replace(DETECTION, metrics=(missed,), main="missed", judge=judge))
    model, lab = brightness({4})
    result = ptq(max_drop=0.0).apply(model, lab)
    assert lab.evaluate(result, "val") == {"missed": 0}
    report = read_json(lab.folder / "score_control.json")
    assert (report["kept_float"], report["float_score"], report["score"]) == (["layers.4"], 0, 0)
    assert {trial["kept_float"]: trial["score"] for trial in report["tried"]}[0] == 1


def test_without_a_limit_all_layers_are_quantized_and_nothing_is_tried(brightness):
    model, lab = brightness({4})
    result = ptq().apply(model, lab)
    assert lab.evaluate(result, "val")["hmean"] == 0
    assert not (lab.folder / "score_control.json").exists()
    assert lab.artefacts == [{"suffix": "", "path": "."}]


def test_a_drop_that_cannot_be_kept_is_said_with_the_best_there_is(brightness):
    model, lab = brightness(set(range(1, 7)))
    with pytest.raises(CompressError, match=r"0\.01 cannot be kept: of Hmean 1\.0000 .* keeps 0\.0000, with 0 of 6 layers float"):
        ptq(max_drop=0.01, keep_float=("layers.0",)).apply(model, lab)
    assert [trial["kept_float"] for trial in read_json(lab.folder / "score_control.json")["tried"]] == [0, 1, 2, 4, 5]


def test_a_search_that_was_cut_off_tries_nothing_twice(brightness, monkeypatch):
    model, lab = brightness({2, 5})
    stage = ptq(max_drop=0.0)
    real = score_control.config_json
    tried = []

    def cut_off(network):
        tried.append(network)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return real(network)

    monkeypatch.setattr(score_control, "config_json", cut_off)
    with pytest.raises(KeyboardInterrupt):
        stage.apply(model, lab)
    assert [trial["kept_float"] for trial in read_json(lab.folder / "score_control.json")["tried"]] == [0, 1]
    stage.apply(model, lab)
    assert set(read_json(lab.folder / "score_control.json")["kept_float"]) == {"layers.2", "layers.5"}
    assert [trial["kept_float"] for trial in read_json(lab.folder / "score_control.json")["tried"]] == [0, 1, 2]
    assert len(tried) == 3 + 1


@pytest.mark.parametrize("most", range(12))
def test_the_search_finds_the_least_and_tries_few_layers_first(most):
    for least in range(1, 14):
        asked = []
        found = fewest_good(lambda count, least=least, asked=asked: asked.append(count) or count >= least, most)
        assert found == (least if least <= most else None)
        assert len(asked) == len(set(asked)) <= 2 * max(1, most).bit_length()
        assert max(asked, default=0) <= max(1, 2 * (least - 1))


def test_one_layer_is_enough_where_all_are_too_many():
    assert fewest_good(lambda count: count < 4, 9) == 1
    assert fewest_good(lambda count: 2 < count < 6, 9) == 3
