"""How many channels each group keeps, against plain computations and as properties."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from compress.pruning.allocation import by_sensitivity, curves_from, least_important, ranked, rounded, uniform
from compress.pruning.groups import Group

GROUPS = [Group(name, (name,), channels, None) for name, channels in (("a", 16), ("b", 40), ("c", 7), ("d", 96))]
STRENGTHS = np.linspace(0, 0.98, 25)


def random_scores(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {group.name: torch.rand(group.channels, generator=generator) for group in GROUPS}


def measured(rises: dict[str, list[float]]) -> dict:
    """A sensitivity.json in which each group saves parameters in proportion to its channels."""
    ratios = [0.25, 0.5, 0.75]
    points = [
        {"group": g.name, "ratio": r, "loss": 1 + rise, "params": 1000 - g.channels * r, "macs": 500 - g.channels * r}
        for g in GROUPS
        for r, rise in zip(ratios, rises[g.name], strict=True)
    ]
    return {"baseline": {"loss": 1.0, "params": 1000, "macs": 500}, "points": points}


@pytest.mark.parametrize(
    ("wanted", "channels", "step", "kept"), [(9.6, 24, 8, 8), (12, 24, 8, 16), (1, 24, 8, 8), (1.6, 4, 8, 4), (0.2, 9, 1, 1)]
)
def test_widths_are_the_nearest_multiple_and_never_nothing(wanted, channels, step, kept):
    assert rounded(wanted, channels, step) == kept


def test_uniform_takes_the_same_share_of_each():
    assert uniform(GROUPS, 0.5, 1) == {"a": 8, "b": 20, "c": 4, "d": 48}
    assert uniform(GROUPS, 0, 8) == {group.name: group.channels for group in GROUPS}


def test_ranked_removes_the_least_important_of_all():
    scores = random_scores()
    kept = ranked(GROUPS, scores, 0.4, 1, max_ratio=1.0)
    everything = torch.cat(list(scores.values())).sort().values
    limit = everything[round(0.4 * len(everything)) - 1]
    assert kept == {name: max(1, int((values > limit).sum())) for name, values in scores.items()}


def test_no_group_loses_more_than_the_largest_ratio():
    scores = random_scores() | {"a": torch.zeros(16)}  # all of them would go first
    assert ranked(GROUPS, scores, 0.5, 1, max_ratio=0.75)["a"] == 4


@pytest.mark.parametrize("step", [1, 8])
def test_more_strength_never_keeps_more(step):
    scores, curves = (
        random_scores(),
        curves_from(measured({"a": [0.1, 0.4, 2], "b": [0, 0, 0.1], "c": [1, 2, 3], "d": [0.2, 0.3, 9]}), "params"),
    )
    ways = [
        lambda s: uniform(GROUPS, s, step),
        lambda s: ranked(GROUPS, scores, s, step, 0.9),
        lambda s: by_sensitivity(GROUPS, curves, s, step, 0.75),
    ]
    for way in ways:
        kept = [way(strength) for strength in STRENGTHS]
        for before, after in pairwise(kept):
            assert all(after[name] <= before[name] for name in after)
        assert sum(kept[-1].values()) < sum(kept[0].values())


def test_sensitivity_cuts_where_it_costs_least():
    flat, steep = [0.0, 0.01, 0.02], [1.0, 2.0, 4.0]
    curves = curves_from(measured({"a": steep, "b": flat, "c": steep, "d": steep}), "params")
    kept = by_sensitivity(GROUPS, curves, 0.35, 1, 0.75)
    assert kept["b"] == 10
    assert [kept[name] for name in "ac"] == [16, 7]
    assert kept["d"] > 85


def test_for_parabolas_every_group_pays_the_same_for_its_next_channel():
    """rise = weight x ratio^2 and saving in proportion: the slopes 2 x weight x ratio / channels of all groups must be equal."""
    weights = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 6.0}
    data = measured({name: [weight * ratio**2 for ratio in (0.25, 0.5, 0.75)] for name, weight in weights.items()})
    curves = curves_from(data, "params")
    many = [Group(group.name, (group.name,), 100_000, None) for group in GROUPS]
    kept = by_sensitivity(many, curves, 0.75, 1, 0.75)
    slopes = {g.name: 2 * weights[g.name] * (1 - kept[g.name] / 100_000) / g.channels for g in GROUPS}
    inside = [slopes[name] for name, left in kept.items() if left > 25_000]
    assert len(inside) >= 2
    assert inside == pytest.approx([inside[0]] * len(inside), rel=1e-3)


def test_channels_of_one_price_do_not_go_all_at_once():
    """Later channels that cost less than the first, as measured, or as little: some strength takes any number of them."""
    for later in ([1.0, 1.2, 1.3], [1.0, 2.0, 3.0]):
        curves = curves_from(measured({"a": later, "b": later, "c": later, "d": later}), "params")
        widths = {by_sensitivity(GROUPS, curves, strength, 1, 0.75)["d"] for strength in np.linspace(0, 1, 20_000)}
        assert widths == set(range(24, 97))


def test_the_least_important_channels_go_and_of_equals_the_first():
    scores = {"a": torch.tensor([3.0, 1, 1, 1] + [9.0] * 12), "b": torch.arange(40.0), "c": torch.ones(7), "d": torch.ones(96)}
    gone = least_important(GROUPS, scores, {"a": 14, "b": 39, "c": 7, "d": 96})
    assert gone == {"a": [1, 2], "b": [0]}
