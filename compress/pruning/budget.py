"""Budgets instead of ratios: how strongly to prune so that a model of a wanted size, cost, latency or score comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from compress.errors import CompressError

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.pruning.settings import Target
    from compress.runtimes.settings import Latency

STRONGEST = 0.98


def cost_of(target: Target, model: Model, latency: Latency) -> float:
    """What `model` has of the target's kind: parameters, bytes, multiply-accumulates or milliseconds, each measured."""
    from compress.checkpoint import shipped_bytes
    from compress.cost import macs, parameters

    if target.kind == "params":
        return parameters(model.network)
    if target.kind == "macs":
        return macs(model.network, latency.input)
    if target.kind == "size":
        return shipped_bytes(model)
    from compress.measure import checkpoint_latency

    (timed,) = checkpoint_latency(model, latency, [target.runtime]).values()
    return timed["median"]


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


def refuse_unreachable(target: Target, smallest: float) -> NoReturn:
    """One sentence for a target that no allowed pruning reaches; `smallest` is what came nearest."""
    wanted = getattr(target, target.kind)
    raise CompressError(
        f"target {target.kind}: {wanted} cannot be reached: the nearest that the stage allows is {smallest:.4g}; "
        "raise max_ratio, widen scope, protect less, lower round_to, or ask for less."
    )
