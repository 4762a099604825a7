"""Learning-rate factors as pure functions of how far a stage has come, so that nothing needs saving to resume."""

from __future__ import annotations

import math
from typing import Literal


def lr_factor(*, step: int, steps: int, warmup_steps: int, decay: Literal["poly", "cosine", "constant"]) -> float:
    """Factor in 0..1 on the peak learning rate at `step` of `steps`, counted from 0.

    Rises linearly as (step + 1) / warmup_steps; then, with t in 0..1 over what is left, falls as (1 - t)^0.9 (`poly`),
    (1 + cos(pi t)) / 2 (`cosine`), or stays 1 (`constant`).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    if decay == "poly":
        return (1 - progress) ** 0.9
    if decay == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0
