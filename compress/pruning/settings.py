"""The settings of pruning; read without torch."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from compress.training.settings import Crop, Schedule

Criterion = Literal["l1", "l2", "group_norm", "lamp", "bn_scale", "fpgm", "taylor", "hessian", "random"]
Allocation = Literal["uniform", "global", "sensitivity"]
Scope = Literal["backbone", "model"]

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
    # A whole model has one parameter or byte at least; less is a share, such as 0.5, that was meant as -50%. Milliseconds may be any.
    if 0 < number < float("inf") and suffix in SUFFIXES[kind] and (kind == "latency" or number * SUFFIXES[kind][suffix] >= 1):
        return number * SUFFIXES[kind][suffix]
    raise ValueError(f"give a quantity such as {EXAMPLES[kind]}, or a share of the parent to take away, such as -60%")


class Target(BaseModel):
    """What a pruned model must come down to; exactly one of these.

    params: parameters, training branches included (`0.35M`, `-40%`). size: bytes of the float32 weights file (`1.15MB`). macs:
    multiply-accumulates at inference on the recipe's latency input (`-60%`). latency: median milliseconds (`12ms`) in `runtime`, measured
    on a file written for the purpose with the recipe's latency input and threads, and met with 3 % to spare, so that it holds when it is
    measured again. precision: of that file; `int8` quantizes every layer but those that give the outputs. max_drop: largest loss of the
    main metric, in its own unit, against the parent, on validation after training by the stage's `recover`; as much is pruned as that
    allows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)

    params: str | None = None
    size: str | None = None
    macs: str | None = None
    latency: str | None = None
    runtime: Literal["torch", "onnxruntime", "openvino"] = "openvino"
    precision: Literal["fp32", "int8"] = "fp32"
    max_drop: float | None = Field(None, ge=0)

    @field_validator(*SUFFIXES)
    @classmethod
    def check_quantity(cls, text: str | None, field: ValidationInfo) -> str | None:
        """A quantity of the right kind."""
        if text is not None and field.field_name is not None:
            limit(field.field_name, text, 1.0)
        return text

    @model_validator(mode="after")
    def check_one(self) -> Target:
        """Exactly one target."""
        given = [name for name in (*SUFFIXES, "max_drop") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"say exactly one of params, size, macs, latency and max_drop (there are {len(given)})")
        if self.precision == "int8" and (self.latency is None or self.runtime == "torch"):
            raise ValueError(
                "precision: int8 is of a `latency` in onnxruntime or openvino; a network in torch does not compute in integers"
            )
        return self

    @property
    def kind(self) -> str:
        """The one that is given."""
        return next(name for name in (*SUFFIXES, "max_drop") if getattr(self, name) is not None)


class Pruning(BaseModel):
    """Which channels are removed, and how many.

    ratio: share of the channels removed. It is a ratio of channels: 0.6 of the whole model is about 0.83 of its parameters and MACs.
    target: a budget instead of a ratio: `{params: 0.35M}`, `{size: 1.15MB}`, `{macs: -60%}`, `{latency: 12ms, runtime: openvino}`, or
    `{max_drop: 0.01}`; see :class:`Target`.
    allocation: which groups give: each the same share (`uniform`), the least important channels of all (`global`), or each as much as
    costs the same loss (`sensitivity`, measured on validation when the stage runs).
    scope: `backbone`, or the whole `model`. protect: patterns (`*` matches anything) of layers whose outputs are left alone.
    criterion: what makes a channel important; see :func:`compress.pruning.criteria.score_channels`.
    round_to: widths are rounded to a multiple of it; heads of attention are not rounded.
    max_ratio: largest share that one group may lose under `global` and `sensitivity`.
    steps: prune in so many steps, each taking the same share of what is left, with training by `recover` between them.
    recover: schedule of that training, and of the short recovery before `max_drop` is judged.
    batches, batch, crop: training samples for the statistics, and for criteria that look at the loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    ratio: float | None = Field(None, gt=0, lt=1)
    target: Target | None = None
    scope: Scope = "model"
    criterion: Criterion = "taylor"
    allocation: Allocation = "uniform"
    round_to: int = Field(1, ge=1, le=256)
    max_ratio: float = Field(0.9, gt=0, le=1)
    protect: tuple[str, ...] = ()
    steps: int = Field(1, ge=1, le=100)
    recover: Schedule | None = None
    batches: int = Field(8, ge=1, le=10_000)
    batch: int = Field(16, ge=1, le=4096)
    crop: Crop | None = None

    @model_validator(mode="after")
    def check_together(self) -> Pruning:
        """Either a ratio or a target, and a schedule where something is trained."""
        if (self.ratio is None) == (self.target is None):
            raise ValueError("say either ratio or target")
        drop = self.target is not None and self.target.kind == "max_drop"
        if drop and self.steps > 1:
            raise ValueError("max_drop prunes in one step; leave steps out")
        if (drop or self.steps > 1) != (self.recover is not None):
            raise ValueError("recover is the schedule between steps and before max_drop is judged: say it there, and only there")
        return self

    def budget(self) -> Target:
        """The target. Raises ValueError where there is a ratio instead."""
        if self.target is None:
            raise ValueError("this pruning has a ratio and no target")
        return self.target

    def wanted(self, start: float) -> float:
        """What the target's quantity must come down to from `start`, the unpruned model's."""
        target = self.budget()
        return limit(target.kind, getattr(target, target.kind), start)
