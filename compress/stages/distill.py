"""Stage `distill`: train a student towards the maps of a larger teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compress.stages.stage import Stage
from compress.training.settings import Schedule

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


class Distill(Schedule, Stage):
    """Loss = (1 - weight) task + weight sum of dice(student map, teacher map) over the maps that the algorithm names.

    For DB these are the probability and the approximate binary map; the threshold map is left out.

    teacher: a recipe, whose last model is used and which is run first if it has not been, or a checkpoint folder. The teacher is
    frozen, its batch norms in evaluation mode.
    weight: share of the teacher in the loss.
    """

    kind: ClassVar[str] = "distill"
    every_process: ClassVar[bool] = True

    teacher: str = Field(min_length=1)
    weight: float = Field(0.9, ge=0, le=1)

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves the best epoch on validation in the folder itself and the last one in `last`."""
        import torch

        from compress.training.distillation import response_loss
        from compress.training.loop import fit
        from compress.training.modes import show_all_maps

        teacher = lab.open_teacher(self.teacher).network.to(lab.device).requires_grad_(False)
        show_all_maps(teacher)

        def objective(network, images, targets):
            outputs = network(images)
            task, parts = model.algorithm.loss(outputs, targets)
            with torch.no_grad():
                wanted = teacher(images)
            response = response_loss(outputs, wanted, model.algorithm.distilled)
            return (1 - self.weight) * task + self.weight * response, {**parts, "response": response.detach()}

        model = fit(model, objective, self, lab, label=self.name, folder=lab.folder)
        lab.add_trained()
        return model
