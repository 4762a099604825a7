"""Stage `train`: from fresh weights, or further from the parent's."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compress.data.formats import DataConfig
from compress.errors import CompressError
from compress.stages.stage import TRAINING, Stage
from compress.training.settings import Schedule

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab
    from compress.training.loop import Objective, StepHook


class Train(Schedule, Stage):
    """Train by the algorithm's own loss. The first stage of a recipe starts from fresh weights, any other from its parent's.

    weights: where the first stage starts instead: a checkpoint folder (the whole model), or a file or https URL of torchvision's
    ImageNet weights (the backbone alone; .pth is read without unpickling objects), or the `model.safetensors` of a checkpoint of another
    model (the backbone alone).
    data: what this stage trains on instead of the recipe's training images, written as the recipe's own section is, and augmented by
    the defaults of its format. Validation, by which the best epoch is chosen, and the rows stay with the recipe's data.
    temperature: what the logits of the outputs are divided by before the first step (Guo et al. 2017, section 4.2); 1 leaves them. A model
    that was trained for long has logits of some 50, which take hundreds of steps to come back from where the new images prove it wrong:
    8 suits PP-OCR's detectors. For networks whose outputs are all probabilities.
    branches: how many parallel copies of a convolution are trained in its place, beside a 1x1 one and the identity, where the architecture
    has such layers (PP-LCNetV3, PP-LCNetV4); 1 is the convolution alone. What is kept of the stage has the one convolution that does the
    same, so further stages train, prune and export that.
    group_sparsity: weight of the penalty that shrinks whole channel groups, the weakest channels fastest (Fang et al. 2023), 0 for none;
    1e-4 or so before pruning. `sparsity` is the older way, on batch-norm scales alone.
    """

    kind: ClassVar[str] = "train"
    version: ClassVar[int] = 1
    needs_parent: ClassVar[bool] = False

    weights: str | None = Field(None, min_length=1)
    data: DataConfig | None = None
    temperature: float = Field(1.0, ge=1, le=1000)
    branches: int = Field(1, ge=1, le=8)
    group_sparsity: float = Field(0.0, ge=0, le=1)

    def initial_weights(self) -> str | None:
        """The `weights`."""
        return self.weights

    def own_data(self) -> DataConfig | None:
        """The `data`."""
        return self.data

    def reads(self) -> tuple[str, ...]:
        """What every training reads."""
        return TRAINING

    def schedule(self) -> Schedule:
        """Its own keys."""
        return self

    def needs_float(self) -> bool:
        """Where it looks for groups of channels."""
        return self.group_sparsity > 0

    def check(self, model: Model) -> None:
        """Refuse branches of a network that has no layers for them, and weights on this machine that are not there or do not fit."""
        from compress.training.branches import check_can_be_split
        from compress.training.weights import is_url, start_from

        if self.branches > 1:
            check_can_be_split(model.network)
        if self.weights and not is_url(self.weights):
            found = start_from(model.with_network(copy.deepcopy(model.network)), self.weights)
            if found.quantization:
                raise CompressError(f"weights: {self.weights} holds a quantized model; give the float one that it was made from.")

    def apply(self, model: Model | None, lab: Lab) -> Model:
        """Leaves the best epoch on validation in the folder itself and the last one in `last`."""
        import torch

        from compress.checkpoint import fresh
        from compress.training.branches import split
        from compress.training.loop import fit
        from compress.training.weights import soften, start_from

        if model is None:
            torch.manual_seed(lab.recipe.seed)
            model = fresh(lab.recipe.model, lab.recipe.evaluate)
            if self.weights:
                model = start_from(model, self.weights)
        soften(model, self.temperature)
        split(model.network, self.branches, lab.recipe.seed)
        model.network.to(lab.device)  # where the hooks find its parameters
        objective, hooks = self.lesson(model)
        model = fit(model, objective, self, lab, label=self.name, folder=lab.folder, **hooks)
        lab.add_trained()
        return model

    def lesson(self, model: Model) -> tuple[Objective, dict[str, StepHook]]:
        """The objective, and the hooks by their names in `training.loop.fit`."""
        from compress.training.group_sparsity import pull_groups
        from compress.training.loop import own_loss

        return own_loss(model.algorithm), {"after_backward": pull_groups(model, self.group_sparsity)} if self.group_sparsity else {}
