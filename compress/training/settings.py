"""The keys that every stage that trains has in common. Nothing is inherited from another stage, nothing is scaled by anything."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from compress.training.schedules import Decay


class Schedule(BaseModel):
    """How long, on what and how fast to train.

    epochs: passes over the training split. batch: pictures per step and device. crop: side of the square training pictures, in pixels.
    optimizer: `sgd` (Nesterov momentum), `rmsprop` (without momentum) or `adamw`; `adam` is adamw, whose weight decay is decoupled.
    lr: peak learning rate. decay: how lr falls over the stage: `poly` (power 0.9), `cosine` (to zero), `step` or `constant`.
    milestones, gamma: of `step`; lr is multiplied by `gamma` at the end of each of these epochs. warmup: epochs of linear rise.
    ema: decay of the exponential moving average of the weights, 0 for none; where it is on, the average is evaluated and kept.
    clip: largest norm of the whole gradient, 0 for none.
    sparsity: weight of the L1 penalty on every batch-norm scale (Liu et al. 2017, equation 1), 0 for none.
    freeze_norms: share of the steps after which batch norms use and keep their running statistics; 1 is never. 0 suits a short training
    from good weights, whose statistics those of a few crops would only disturb.
    precision: `auto` takes bf16 autocast where the device computes it natively, else fp32.
    evaluate_every: epochs between evaluations on the validation split; the last epoch is always evaluated.
    workers: processes that prepare samples beside the training process; the samples do not depend on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    later_keys: ClassVar[tuple[str, ...]] = ("milestones", "gamma", "freeze_norms")

    epochs: int = Field(ge=1, le=100_000)
    batch: int = Field(16, ge=1, le=4096)
    crop: int = Field(640, ge=32, le=4096, multiple_of=32)
    optimizer: Literal["sgd", "rmsprop", "adam", "adamw"] = "adamw"
    lr: float = Field(2e-3, gt=0, le=10)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-5, ge=0, le=1)
    decay: Decay = "poly"
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = ()
    gamma: float = Field(0.1, gt=0, le=1)
    warmup: float = Field(0.0, ge=0)
    ema: float = Field(0.0, ge=0, lt=1)
    clip: float = Field(0.0, ge=0)
    sparsity: float = Field(0.0, ge=0, le=1)
    freeze_norms: float = Field(1.0, ge=0, le=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    evaluate_every: int = Field(1, ge=1)
    workers: int = Field(0, ge=0, le=64)

    @model_validator(mode="after")
    def check_steps(self) -> Schedule:
        """Refuse a `step` decay without steps, and steps that nothing would take."""
        if self.decay == "step" and not self.milestones:
            raise ValueError("decay: step needs `milestones`, the epochs at whose end lr falls")
        if self.decay != "step" and (self.milestones or self.gamma != type(self).model_fields["gamma"].default):
            raise ValueError(f"milestones and gamma have no effect with decay: {self.decay}; set decay: step")
        return self

    @model_serializer(mode="wrap")
    def without_later_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What was trained before these keys existed keeps its place in the cache.
        unused = {name for name in self.later_keys if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in plain(self).items() if name not in unused}
