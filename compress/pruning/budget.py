"""Budgets instead of ratios: how strongly to prune so that a model of a wanted size, cost, latency or score comes out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch

from compress.errors import CompressError

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.pruning.settings import Pruning, Target
    from compress.runtimes.settings import Latency

STRONGEST = 0.98


class Cost(NamedTuple):
    """What a model has of a target's kind, measured. told: the same with its unit, and of a latency with its scatter."""

    value: float
    told: str


def cost_of(target: Target, model: Model, latency: Latency) -> Cost:
    """Parameters, bytes, multiply-accumulates or milliseconds of `model`, whichever the target is about."""
    from compress.checkpoint import shipped_bytes
    from compress.cost import macs, parameters

    if target.kind == "params":
        count = parameters(model.network)
        return Cost(count, f"{count / 1e6:.4g}M")
    if target.kind == "macs":
        count = macs(model.network, latency.input)
        return Cost(count, f"{count / 1e9:.4g}G")
    if target.kind == "size":
        count = shipped_bytes(model)
        return Cost(count, f"{count / 1e6:.4g}MB")
    timed = timed_as(target, model, latency)
    return Cost(timed["median"], f"{timed['median']:.4g}ms (nine of ten calls within {timed['p90']:.4g}ms)")


def timed_as(target: Target, model: Model, latency: Latency) -> dict[str, Any]:
    """Latency in the target's runtime of a file in the target's precision that is written for the purpose."""
    from compress.measure import checkpoint_latency, written_latency

    if target.precision == "fp32":
        (timed,) = checkpoint_latency(model, latency, [target.runtime]).values()
        return timed
    from compress.quantization.nncf_torch import config_json, quantize

    # Ranges, which the images decide, change no latency: any image will do.
    example = torch.rand(tuple(latency.input), generator=torch.Generator().manual_seed(0))
    network = quantize(copy.deepcopy(model.network).cpu(), [example], example, model.algorithm.kept)
    (timed,) = written_latency(model.with_network(network, config_json(network)), latency, [target.runtime]).values()
    return timed


def cost_range(stage: Pruning, model: Model, latency: Latency) -> tuple[Cost, Cost]:
    """What `model` has of the stage's target as it is, and with as few channels as its `global` allocation leaves in any case."""
    from compress.pruning.allocation import least_important, ranked
    from compress.pruning.groups import find_groups, remove_channels

    smallest = model.with_network(copy.deepcopy(model.network))
    groups = find_groups(smallest, stage.scope, stage.protect)
    # At this strength every group gives all that it may: scores decide which channels stay, and not how many.
    scores = {group.name: torch.arange(group.channels, dtype=torch.float32) for group in groups}
    kept = ranked(groups, scores, STRONGEST, stage.round_to, stage.max_ratio)
    remove_channels(smallest, groups, least_important(groups, scores, kept))
    target = stage.budget()
    return cost_of(target, model, latency), cost_of(target, smallest, latency)


def weakest_enough(enough: Callable[[float], bool], *, tries: int) -> float | None:
    """The smallest strength found for which `enough` holds, by bisection; None where not even the strongest does.

    `enough` is expected to be false below some strength and true from it on.
    """
    if not enough(STRONGEST):
        return None
    low, high = 0.0, STRONGEST
    for _ in range(tries):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def strongest_good(good: Callable[[float], bool], *, tries: int) -> float | None:
    """The largest strength found for which `good` holds, by bisection; None where it never does.

    `good` is expected to be true up to some strength and false from it on.
    """
    low, high = 0.0, STRONGEST
    for _ in range(tries):
        middle = (low + high) / 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low or None


def refuse_unreachable(target: Target, nearest: str) -> NoReturn:
    """One sentence for a target that no allowed pruning reaches; `nearest` is what came nearest, in words."""
    wanted = getattr(target, target.kind)
    raise CompressError(
        f"target {target.kind}: {wanted} cannot be reached: the nearest that the stage allows is {nearest}; "
        "raise max_ratio, widen scope, protect less, lower round_to, or ask for less."
    )
