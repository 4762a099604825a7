"""How many channels each group keeps: pure functions of how strongly to prune, in 0..1, where more strength never keeps more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.pruning.groups import Group

Widths = dict[str, int]


def uniform(groups: Sequence[Group], strength: float, round_to: int) -> Widths:
    """Every group loses the share `strength` of its channels."""
    return {group.name: rounded(group.channels * (1 - strength), group.channels, step(group, round_to)) for group in groups}


def ranked(groups: Sequence[Group], scores: Mapping[str, Tensor], strength: float, round_to: int, max_ratio: float) -> Widths:
    """`global`: the share `strength` of all channels goes, the least important of all groups first; no group loses over `max_ratio`."""
    candidates = {group.name: scores[group.name].sort().values[: int(max_ratio * group.channels)] for group in groups}
    pool = torch.cat(list(candidates.values())).sort().values
    count = min(round(strength * sum(group.channels for group in groups)), len(pool))
    limit = pool[count - 1] if count else -torch.inf
    lost = {name: int((values <= limit).sum()) for name, values in candidates.items()}
    return {group.name: rounded(group.channels - lost[group.name], group.channels, step(group, round_to)) for group in groups}


@dataclass(frozen=True)
class Curve:
    """The price of a group's channels.

    ratios: shares of the group's channels that are removed, increasing from 0.
    prices: at each ratio, the rise of the loss for each parameter (or multiply-accumulate) that the next channel saves; increasing from 0.
    """

    ratios: np.ndarray
    prices: np.ndarray


def by_sensitivity(groups: Sequence[Group], curves: Mapping[str, Curve], strength: float, round_to: int, max_ratio: float) -> Widths:
    """Remove channels where they are cheap: every group loses channels until its next one costs more than a common price.

    The same price for all groups gives the least predicted loss for what is saved (Everett 1963, Lagrange multipliers), if curves are
    convex. The price rises with `strength`, from 0 to that of the most expensive channels.
    """
    highest = max(curves[group.name].prices[-1] for group in groups)
    price = highest * strength**PRICE_POWER
    kept = {}
    for group in groups:
        curve = curves[group.name]
        ratio = min(max_ratio, float(np.interp(price, curve.prices, curve.ratios)))
        kept[group.name] = rounded(group.channels * (1 - ratio), group.channels, step(group, round_to))
    return kept


# Prices of groups span decades: a power gives the cheap ones a fair part of the strengths.
PRICE_POWER = 4
# Of the mean price, for channels that seem to cost nothing: else a group of such would go at once as a whole.
LEAST_PRICE = 0.01
# By how much the price rises at least over a whole group: channels of one price would go all at once, and targets be missed by far.
LEAST_RISE = 0.1


def curves_from(sensitivity: Mapping[str, Any], cost: str) -> dict[str, Curve]:
    """Curves from a `sensitivity.json`, by group. cost: what is saved, `params` or `macs`.

    The loss is made monotonic first. Between two measured ratios it has one slope, which is taken as the price at their middle; prices
    between middles are interpolated.
    """
    base = sensitivity["baseline"]
    points: dict[str, list[Mapping[str, Any]]] = {}
    for point in sorted(sensitivity["points"], key=lambda point: point["ratio"]):
        points.setdefault(point["group"], []).append(point)
    ratios = {name: np.array([0.0, *(p["ratio"] for p in found)]) for name, found in points.items()}
    prices = {}
    for name, found in points.items():
        rise = np.maximum.accumulate([0.0, *(p["loss"] - base["loss"] for p in found)])
        saved = np.array([0.0, *(base[cost] - p[cost] for p in found)])
        prices[name] = np.maximum.accumulate(np.diff(rise) / np.maximum(np.diff(saved), 1))
    least = LEAST_PRICE * float(np.mean([price.mean() for price in prices.values()])) or 1.0
    curves = {}
    for name, steps in prices.items():
        middles = (ratios[name][1:] + ratios[name][:-1]) / 2
        at_middles = rising(np.maximum(steps, least * (1 + middles)), middles)
        at_end = at_middles[-1] + (at_middles[-1] - (at_middles[-2] if len(middles) > 1 else 0)) / 2
        curves[name] = Curve(np.array([0.0, *middles, ratios[name][-1]]), np.array([0.0, *at_middles, at_end]))
    return curves


def rising(prices: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """The least prices, none below the one given, that rise from each ratio to the next: the dearest so far, and a little more."""
    found = prices.copy()
    for place in range(1, len(found)):
        found[place] = max(found[place], found[place - 1] * (1 + LEAST_RISE * (ratios[place] - ratios[place - 1])))
    return found


def step(group: Group, round_to: int) -> int:
    """What the width of a group is rounded to: whole heads are left as they are."""
    return 1 if group.unit > 1 else round_to


def rounded(wanted: float, channels: int, round_to: int) -> int:
    """The multiple of `round_to` nearest to `wanted`, at least one such multiple, at most the channels there are."""
    step = min(round_to, channels)
    return min(channels, max(step, step * int(wanted / step + 0.5)))


def least_important(groups: Sequence[Group], scores: Mapping[str, Tensor], widths: Mapping[str, int]) -> dict[str, list[int]]:
    """Which channels go where so many stay: group name -> indices of those with the lowest scores, the earlier of equals first."""
    return {
        group.name: scores[group.name].argsort(stable=True)[: group.channels - widths[group.name]].tolist()
        for group in groups
        if widths[group.name] < group.channels
    }
