"""A sensitivity on the terminal."""

from __future__ import annotations

import pytest

from compress.report.gallery import sensitivity_caption
from compress.report.sensitivity import print_quantization, print_sensitivity


def test_points_are_told_against_the_baseline_whose_statistics_are_re_estimated(sensitivity, scores, capsys):
    found = sensitivity(2)
    found |= {
        "unpruned": {**found["baseline"], "scores": scores(0.95)},
        "plan": {"params": 5, "channels": {g["name"]: 4 for g in found["groups"]}},
    }
    print_sensitivity(found)
    text = " ".join(capsys.readouterr().out.split())
    assert "Hmean lost (points) with one group pruned" in text
    assert "backbone.blocks.1.expand.0 10 9.00 45.00 81.00 4" in text
    assert "Unpruned: Hmean 95.00 %, 10 parameters." in text
    assert "statistics re-estimated as after pruning: Hmean 90.00 %, which the points above are held against." in text
    assert "Rank correlation (Spearman) of the loss and of what Hmean loses: 0.87." in text
    caption = sensitivity_caption(found, "sensitivity.json").replace("\N{NO-BREAK SPACE}", " ")
    assert caption == (
        "sensitivity.json: baseline on 9 val images, short_side 64, criterion taylor, "
        "against the whole network with re-estimated statistics (Hmean 90.00 %, 95.00 % before), rank correlation of loss and Hmean 0.87."
    )


def test_after_the_fast_pass_it_is_the_loss(sensitivity, capsys):
    found = sensitivity(1, scored=False)
    base = found["baseline"]
    found |= {"baseline": base, "unpruned": base, "rank_correlation": None}
    found |= {"plan": {"params": 5, "channels": {"backbone.blocks.0.expand.0": 4}}}
    print_sensitivity(found)
    text = " ".join(capsys.readouterr().out.split())
    assert "loss gained with one group pruned" in text
    assert "backbone.blocks.0.expand.0 10 0.001 0.005 0.009 4" in text
    assert "Unpruned: loss 1.000" in text


@pytest.mark.usefixtures("counting")
def test_quantized_layers_are_told_by_loss_and_by_the_main_metric_of_any_task(capsys):
    points = [{"layer": "a", "loss": 0.1, "scores": None}, {"layer": "b", "loss": 0.2, "scores": {"error": 2.5}}]
    found = {"task": "counting", "baseline": {"loss": 0.0, "scores": {"error": 2.0}}, "points": points, "rank_correlation": None}
    print_quantization(found)
    text = " ".join(capsys.readouterr().out.split())
    assert "layer difference of the outputs error px" in text
    assert "b 2.00e-01 2.50 a 1.00e-01 2 layers measured; all in float: error px 2.00." in text
    assert "of the loss and of what error px loses: not defined" in text
