"""The keys that every stage that trains has in common. Nothing is inherited from another stage, nothing is scaled by anything."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from compress.tasks.task import Task
from compress.training.schedules import Decay


def pair(written: object) -> object:
    """One number stands for a square."""
    if isinstance(written, int) and not isinstance(written, bool):
        return written, written
    if not isinstance(written, list | tuple) or len(written) != 2:
        raise ValueError("give one number of pixels, or [height, width]")
    return written


MOST_PIXELS = 1 << 28  # in a batch: 655 images of 640 x 640
Side = Annotated[int, Field(ge=16, le=4096)]
# Height and width of training images, in pixels.
Crop = Annotated[tuple[Side, Side], BeforeValidator(pair)]


class Schedule(BaseModel):
    """How long, on what and how fast to train.

    epochs: how often the training split is gone through. batch: images per step and device.
    crop: side of the square training images, or their
    [height, width], in pixels; unless said, what is usual for the task: 640 for detectors, [48, 192] for classifiers of lines.
    optimizer: `sgd` (Nesterov momentum), `rmsprop` (without momentum) or `adamw`; `adam` is adamw, whose weight decay is decoupled.
    lr: peak learning rate. decay: how lr falls over the stage: `poly` (power 0.9), `cosine` (to zero), `step` or `constant`.
    milestones, gamma: of `step`; lr is multiplied by `gamma` at the end of each of these epochs. warmup: epochs of linear rise.
    ema: decay of the exponential moving average of the weights, 0 for none; where it is on, the average is evaluated and kept.
    clip: largest norm of the whole gradient, 0 for none.
    sparsity: weight of the L1 penalty on every batch-norm scale (Liu et al. 2017, equation 1), 0 for none.
    freeze_norms: share of the steps after which batch norms use and keep their running statistics; 1 is never. 0 suits a short training
    from good weights, whose statistics those of a few crops would only disturb.
    freeze: patterns (`*` matches anything) of layers whose weights and norms stay as they are, such as `backbone`.
    precision: `auto` takes bf16 autocast where the device computes it natively, else fp32.
    evaluate_every: epochs between evaluations on the validation split; the last epoch is always evaluated.
    workers: processes that prepare samples beside the training process; the samples do not depend on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    relative_steps: ClassVar[bool] = False  # whether steps are in proportion to the sizes of weights

    epochs: int = Field(ge=1, le=100_000)
    batch: int = Field(16, ge=1, le=4096)
    crop: Crop | None = None
    optimizer: Literal["sgd", "rmsprop", "adam", "adamw"] = "adamw"
    lr: float = Field(2e-3, gt=0, le=1)
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
    freeze: tuple[Annotated[str, Field(min_length=1)], ...] = ()
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
        height, width = self.crop or (0, 0)
        if self.batch * height * width > MOST_PIXELS:
            raise ValueError(f"batch: {self.batch} images of {height} x {width} are more than memory holds; take fewer, or smaller ones")
        return self

    def size(self, task: Task) -> tuple[int, int]:
        """Height and width of the training images, in pixels."""
        return self.crop or task.crop
