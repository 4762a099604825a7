"""Learning-rate factors as pure functions of how far a stage has come, so that nothing needs saving to resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Decay = Literal["poly", "cosine", "step", "constant"]


def lr_factor(*, step: int, steps: int, warmup_steps: int, decay: Decay, milestones: Sequence[float] = (), gamma: float = 1.0) -> float:
    """Factor in 0..1 on the peak learning rate at `step` of `steps`, counted from 0.

    Rises linearly as (step + 1) / warmup_steps; then, with t in 0..1 over what is left, falls as (1 - t)^0.9 (`poly`),
    (1 + cos(pi t)) / 2 (`cosine`), is gamma^n once n of the `milestones`, counted in steps, are done (`step`), or stays 1 (`constant`).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    if decay == "poly":
        return (1 - progress) ** 0.9
    if decay == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    if decay == "step":
        return gamma ** sum(step >= milestone for milestone in milestones)
    return 1.0
