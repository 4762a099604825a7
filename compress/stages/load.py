"""Stage `load`: a finished checkpoint, as it is, to start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from compress.errors import CompressError
from compress.packaged import float_parent
from compress.stages.stage import Stage

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


PACKAGED = "packaged/"


class Load(Stage):
    """Take a model that was trained elsewhere, so that a recipe can compress it without training it first.

    checkpoint: a checkpoint folder, such as `compress convert` writes, pruned ones included; `packaged/detection`, the float weights of
    the detector that comes with the package; or a recipe, whose last model it is, and which is run first where it has not been. Its
    architecture must be that of the recipe's `model`; its thresholds are not taken over. A guide that the checkpoint has not starts afresh.
    """

    kind: ClassVar[str] = "load"
    version: ClassVar[int] = 1
    needs_parent: ClassVar[bool] = False
    others_have_rows: ClassVar[bool] = False  # the model's row is the stage's own

    checkpoint: str = Field(min_length=1)

    @field_validator("checkpoint")
    @classmethod
    def unpacked(cls, checkpoint: str) -> str:
        """The folder of a checkpoint that comes with the package."""
        if not checkpoint.startswith(PACKAGED):
            return checkpoint
        try:
            return str(float_parent(checkpoint.removeprefix(PACKAGED)))
        except CompressError as error:
            raise ValueError(str(error)) from None

    def other_models(self) -> tuple[str, ...]:
        """The checkpoint."""
        return (self.checkpoint,)

    def copied_model(self) -> str:
        """The checkpoint."""
        return self.checkpoint

    def splits(self) -> tuple[str, ...]:
        """It looks at no image."""
        return ()

    def reads(self) -> tuple[str, ...]:
        """What its own checkpoint says of the model."""
        return ("model", "evaluate")

    def check_others(self, model: Model, others: Mapping[str, Model]) -> None:
        """Refuse a checkpoint of another architecture."""
        from compress.training.weights import architecture

        found = others[self.checkpoint]
        if architecture(found) != architecture(model):
            told = f"{self.checkpoint} holds the model {found.config}, but the recipe asks for {model.config}"
            raise CompressError(f"{told}; make them the same.")

    def apply(self, _model: Model | None, lab: Lab) -> Model:
        """Leaves the checkpoint's weights in the folder, with the recipe's thresholds."""
        import torch

        from compress.checkpoint import fresh
        from compress.training.weights import as_in

        torch.manual_seed(0)  # a fresh guide is the same for all seeds, as the key of this stage has none
        result = as_in(fresh(lab.recipe.model, lab.recipe.evaluate), lab.open_teacher(self.checkpoint), self.checkpoint)
        lab.save(result, lab.folder)
        lab.add("", ".")
        return result
