"""A sensitivity on the terminal."""

from __future__ import annotations

from compress.report.gallery import sensitivity_caption
from compress.report.sensitivity import print_sensitivity


def test_points_are_told_against_the_baseline_whose_statistics_are_re_estimated(sensitivity, capsys):
    found = sensitivity(2)
    found |= {"unpruned": {**found["baseline"], "hmean": 0.95}, "plan": {"params": 5, "channels": {g["name"]: 4 for g in found["groups"]}}}
    print_sensitivity(found)
    text = " ".join(capsys.readouterr().out.split())
    assert "Hmean lost (points) with one group pruned" in text
    assert "backbone.blocks.1.expand.0 10 9.00 45.00 81.00 4" in text
    assert "Unpruned: Hmean % 95.00, 10 parameters." in text
    assert "statistics re-estimated as after a cut: Hmean % 90.00, which the points above are held against." in text
    assert "re-estimated statistics (Hmean 90.00 %, 95.00 % before)" in sensitivity_caption(found, "sensitivity.json")


def test_after_the_fast_pass_it_is_the_loss(sensitivity, capsys):
    found = sensitivity(1, hmean=False)
    base = {**found["baseline"], "hmean": None}
    found |= {"baseline": base, "unpruned": base, "rank_correlation": None}
    found |= {"plan": {"params": 5, "channels": {"backbone.blocks.0.expand.0": 4}}}
    print_sensitivity(found)
    text = " ".join(capsys.readouterr().out.split())
    assert "loss gained with one group pruned" in text
    assert "backbone.blocks.0.expand.0 10 0.001 0.005 0.009 4" in text
