"""The keys that every stage that trains has in common. Nothing is inherited from another stage, nothing is scaled by anything."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Schedule(BaseModel):
    """How long, on what and how fast to train.

    epochs: passes over the training split. batch: pictures per step and device. crop: side of the square training pictures, in pixels.
    optimizer: `sgd` (Nesterov momentum) or `adamw`; `adam` is adamw, whose weight decay is decoupled. lr: peak learning rate.
    decay: how lr falls over the stage: `poly` (power 0.9), `cosine` (to zero) or `constant`. warmup: epochs of linear rise before it.
    ema: decay of the exponential moving average of the weights, 0 for none; where it is on, the average is evaluated and kept.
    clip: largest norm of the whole gradient, 0 for none.
    sparsity: weight of the L1 penalty on every batch-norm scale (Liu et al. 2017, equation 1), 0 for none.
    precision: `auto` takes bf16 autocast where the device computes it natively, else fp32.
    evaluate_every: epochs between evaluations on the validation split; the last epoch is always evaluated.
    workers: processes that prepare samples beside the training process; the samples do not depend on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(ge=1, le=100_000)
    batch: int = Field(16, ge=1, le=4096)
    crop: int = Field(640, ge=32, le=4096, multiple_of=32)
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = Field(2e-3, gt=0, le=10)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-5, ge=0, le=1)
    decay: Literal["poly", "cosine", "constant"] = "poly"
    warmup: float = Field(0.0, ge=0)
    ema: float = Field(0.0, ge=0, lt=1)
    clip: float = Field(0.0, ge=0)
    sparsity: float = Field(0.0, ge=0, le=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    evaluate_every: int = Field(1, ge=1)
    workers: int = Field(0, ge=0, le=64)
