"""Stage `prune`: remove channels, then put the batch-norm statistics right."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress.stages.stage import Stage

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


class Prune(Stage):
    """Remove whole channels, coupled layers together (torch-pruning's dependency graph), the unimportant ones first.

    ratio: share of the channels removed, of every group (`uniform`) or of all of them ranked together (`global`). It is a ratio of
    channels: 0.6 of the whole model is about 0.83 of its parameters and MACs.
    scope: `backbone`, or the whole `model`. protect: patterns (`*` matches anything) of layers whose outputs are left alone.
    criterion: what makes a channel important: `l1`, `l2` norm of its weights, `bn_scale` |gamma| (Liu et al. 2017), `fpgm` distance to
    the other channels (He et al. 2019), `taylor` first-order effect on the loss (Molchanov et al. 2019), or `random`.
    round_to: widths are rounded to a multiple of it. max_ratio: largest share that one group may lose under `global`.
    batches, batch, crop: training samples for the statistics, and for `taylor`.
    """

    kind: ClassVar[str] = "prune"

    ratio: float = Field(gt=0, lt=1)
    scope: Literal["backbone", "model"] = "model"
    criterion: Literal["l1", "l2", "bn_scale", "fpgm", "taylor", "random"] = "taylor"
    allocation: Literal["uniform", "global"] = "uniform"
    round_to: int = Field(1, ge=1, le=256)
    max_ratio: float = Field(0.9, gt=0, le=1)
    protect: tuple[str, ...] = ()
    batches: int = Field(8, ge=1)
    batch: int = Field(16, ge=1)
    crop: int = Field(640, ge=32, multiple_of=32)

    def check(self, model: Model) -> None:
        """Refuse a pattern that matches no layer and a backbone that the network has not."""
        from compress.pruning.channels import kept_layers

        kept_layers(model, self.scope, self.protect)

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves the model before the statistics are re-estimated in `raw` and after it in the folder itself."""
        from compress.checkpoint import save
        from compress.data.training import TrainingSet
        from compress.files import write_json
        from compress.pruning.batch_norm import reestimate
        from compress.pruning.channels import prune, widths

        samples = TrainingSet(lab.split("train"), model.algorithm.targets, lab.recipe.augment, self.crop, lab.recipe.seed)
        before = widths(model.network)
        prune(model, self, samples, lab)
        save(model, lab.folder / "raw")
        reestimate(model, samples, self.batch, self.batches, lab)
        save(model, lab.folder)
        after = widths(model.network)
        write_json(lab.folder / "channels.json", {name: [before[name], after[name]] for name in before})
        lab.add("raw", "raw")
        lab.add("", ".")
        return model
