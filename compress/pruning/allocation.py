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
    return {group.name: rounded(group.channels * (1 - strength), group.channels, round_to) for group in groups}


def ranked(groups: Sequence[Group], scores: Mapping[str, Tensor], strength: float, round_to: int, max_ratio: float) -> Widths:
    """`global`: the share `strength` of all channels goes, the least important of all groups first; no group loses over `max_ratio`."""
    candidates = {group.name: scores[group.name].sort().values[: int(max_ratio * group.channels)] for group in groups}
    pool = torch.cat(list(candidates.values())).sort().values
    count = min(round(strength * sum(group.channels for group in groups)), len(pool))
    limit = pool[count - 1] if count else -torch.inf
    lost = {name: int((values <= limit).sum()) for name, values in candidates.items()}
    return {group.name: rounded(group.channels - lost[group.name], group.channels, round_to) for group in groups}


@dataclass(frozen=True)
class Curve:
    """One group's sensitivity, for linear interpolation.

    ratios: share of its channels lost, increasing from 0. loss: rise of the loss over the unpruned model's, in units of the median
    group's rise at the largest ratio. saved: what the whole model loses in cost, in units of the largest saving of any group.
    """

    ratios: np.ndarray
    loss: np.ndarray
    saved: np.ndarray


def by_sensitivity(groups: Sequence[Group], curves: Mapping[str, Curve], strength: float, round_to: int, max_ratio: float) -> Widths:
    """Groups are cut where it costs least: each takes the ratio that minimises its rise of the loss - price x what that saves.

    One price holds for all groups, as in Lagrangian allocation (Everett 1963); it grows with `strength` from nothing to all there is.
    """
    ratios = np.linspace(0, max_ratio, 181)
    price = strength / max(1e-9, 1 - strength)
    kept = {}
    for group in groups:
        curve = curves[group.name]
        rise, saved = np.interp(ratios, curve.ratios, curve.loss), np.interp(ratios, curve.ratios, curve.saved)
        best = float(ratios[(rise - price * saved).argmin()])
        kept[group.name] = rounded(group.channels * (1 - best), group.channels, round_to)
    return kept


def curves_from(sensitivity: Mapping[str, Any], cost: str) -> dict[str, Curve]:
    """Curves out of a `sensitivity.json`, by group: loss of the maps, made never to fall, against `cost`, which is `params` or `macs`."""
    base = sensitivity["baseline"]
    points: dict[str, list[Mapping[str, Any]]] = {}
    for point in sorted(sensitivity["points"], key=lambda point: point["ratio"]):
        points.setdefault(point["group"], []).append(point)
    rises = {name: np.maximum.accumulate([0.0, *(p["loss"] - base["loss"] for p in found)]) for name, found in points.items()}
    savings = {name: np.array([0.0, *(base[cost] - p[cost] for p in found)]) for name, found in points.items()}
    loss_unit = float(np.median([rise[-1] for rise in rises.values()])) or 1.0
    cost_unit = float(max(saved[-1] for saved in savings.values())) or 1.0
    return {
        name: Curve(np.array([0.0, *(p["ratio"] for p in found)]), rises[name] / loss_unit, savings[name] / cost_unit)
        for name, found in points.items()
    }


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
