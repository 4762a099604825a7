"""The words that a recipe may say about pruning; read without torch."""

from __future__ import annotations

from typing import Literal

Criterion = Literal["l1", "l2", "group_norm", "lamp", "bn_scale", "fpgm", "taylor", "hessian", "random"]
Allocation = Literal["uniform", "global", "sensitivity"]
Scope = Literal["backbone", "model"]
