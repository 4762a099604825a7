"""Budgets instead of ratios: how strongly to prune so that a model of a wanted size, cost, latency or accuracy comes out."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from compress.errors import CompressError

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.recipe import Latency

STRONGEST = 0.98
SUFFIXES = {
    "params": {"": 1.0, "k": 1e3, "m": 1e6},
    "macs": {"": 1.0, "m": 1e6, "g": 1e9},
    "size": {"b": 1.0, "kb": 1e3, "mb": 1e6},
    "latency": {"ms": 1.0, "s": 1e3},
}
EXAMPLES = {"params": "0.35M", "macs": "0.4G", "size": "1.15MB", "latency": "12ms"}


def limit(kind: str, text: str, parent: float) -> float:
    """The number that a quantity stands for: `-60%` of `parent`, or `0.35M` = 350,000, `1.15MB` = 1,150,000 bytes, `12ms` = 12.

    Raises ValueError for any other text.
    """
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*(%|[a-zA-Z]*)", text.strip())
    number, suffix = (float(found[1]), found[2].lower()) if found else (0.0, "")
    if suffix == "%" and -100 < number < 0:
        return parent * (1 + number / 100)
    if number > 0 and suffix in SUFFIXES[kind]:
        return number * SUFFIXES[kind][suffix]
    raise ValueError(f"give a quantity such as {EXAMPLES[kind]}, or a share of the parent to take away, such as -60%")


class Target(BaseModel):
    """What a pruned model must come down to; exactly one of these.

    params: parameters, training branches included (`0.35M`, `-40%`). size: bytes of the float32 weights file (`1.15MB`). macs:
    multiply-accumulates at inference on the recipe's latency input (`-60%`). latency: median milliseconds (`12ms`) in `runtime`, measured
    on a file written for the purpose with the recipe's latency input and threads. max_drop: of the main metric on
    validation, in its own unit (0..1), against the parent, after training by the stage's `recover`; as much is pruned as that allows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    params: str | None = None
    size: str | None = None
    macs: str | None = None
    latency: str | None = None
    runtime: Literal["torch", "onnxruntime", "openvino"] = "openvino"
    max_drop: float | None = Field(None, ge=0)

    @field_validator(*SUFFIXES)
    @classmethod
    def check_quantity(cls, text: str | None, field: ValidationInfo) -> str | None:
        """A quantity of the right kind."""
        if text is not None:
            limit(field.field_name, text, 1.0)
        return text

    @model_validator(mode="after")
    def check_one(self) -> Target:
        """Exactly one target."""
        given = [name for name in (*SUFFIXES, "max_drop") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"say exactly one of params, size, macs, latency and max_drop (there are {len(given)})")
        return self

    @property
    def kind(self) -> str:
        """The one that is given."""
        return next(name for name in (*SUFFIXES, "max_drop") if getattr(self, name) is not None)


def cost_of(target: Target, model: Model, latency: Latency) -> float:
    """What `model` has of the target's kind: parameters, bytes, multiply-accumulates or milliseconds, each measured."""
    from compress.checkpoint import WEIGHTS, save
    from compress.cost import macs, parameters

    if target.kind == "params":
        return parameters(model.network)
    if target.kind == "macs":
        return macs(model.network, latency.input)
    if target.kind == "size":
        with tempfile.TemporaryDirectory() as folder:
            save(model, Path(folder))
            return (Path(folder) / WEIGHTS).stat().st_size
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
