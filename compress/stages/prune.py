"""Stage `prune`: remove channels, then put the batch-norm statistics right."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from compress.pruning.budget import Target
from compress.pruning.choices import Allocation, Criterion, Scope
from compress.stages.stage import Stage
from compress.training.settings import Crop, Schedule

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


class Prune(Stage):
    """Remove whole channels, coupled layers together (torch-pruning's dependency graph), the unimportant ones first.

    ratio: share of the channels removed. It is a ratio of channels: 0.6 of the whole model is about 0.83 of its parameters and MACs.
    target: a budget instead of a ratio: `{params: 0.35M}`, `{size: 1.15MB}`, `{macs: -60%}`, `{latency: 12ms, runtime: openvino}`, or
    `{max_drop: 0.01}`; see :class:`compress.pruning.budget.Target`.
    allocation: which groups give: each the same share (`uniform`), the least important channels of all (`global`), or each as much as
    costs the same loss (`sensitivity`, measured on validation when the stage runs).
    scope: `backbone`, or the whole `model`. protect: patterns (`*` matches anything) of layers whose outputs are left alone.
    criterion: what makes a channel important; see :func:`compress.pruning.criteria.score_channels`.
    round_to: widths are rounded to a multiple of it. max_ratio: largest share that one group may lose under `global` and `sensitivity`.
    steps: prune in so many steps, each taking the same share of what is left, with training by `recover` between them.
    recover: schedule of that training, and of the short recovery before `max_drop` is judged.
    batches, batch, crop: training samples for the statistics, and for criteria that look at the loss.
    """

    kind: ClassVar[str] = "prune"

    ratio: float | None = Field(None, gt=0, lt=1)
    target: Target | None = None
    scope: Scope = "model"
    criterion: Criterion = "taylor"
    allocation: Allocation = "uniform"
    round_to: int = Field(1, ge=1, le=256)
    max_ratio: float = Field(0.9, gt=0, le=1)
    protect: tuple[str, ...] = ()
    steps: int = Field(1, ge=1, le=100)
    recover: Schedule | None = None
    batches: int = Field(8, ge=1)
    batch: int = Field(16, ge=1)
    crop: Crop | None = None

    @model_validator(mode="after")
    def check_together(self) -> Prune:
        """Either a ratio or a target, and a schedule where something is trained."""
        if (self.ratio is None) == (self.target is None):
            raise ValueError("say either ratio or target")
        drop = self.target is not None and self.target.kind == "max_drop"
        if drop and self.steps > 1:
            raise ValueError("max_drop prunes in one step; leave steps out")
        if (drop or self.steps > 1) != (self.recover is not None):
            raise ValueError("recover is the schedule between steps and before max_drop is judged: say it there, and only there")
        return self

    def check(self, model: Model) -> None:
        """Refuse a pattern that matches no layer and a backbone that the network has not."""
        from compress.pruning.groups import kept_layers

        kept_layers(model, self.scope, self.protect)

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves the model before the statistics are moved in `raw` and after it, or after recovery, in the folder itself."""
        from compress.files import write_json
        from compress.pruning.groups import widths
        from compress.pruning.shrink import shrink

        before = widths(model.network)
        pruned = shrink(model, self, lab)
        after = widths(pruned.network)
        write_json(lab.folder / "channels.json", {name: [before[name], after[name]] for name in before})
        lab.add("raw", "raw")
        lab.add("", ".")
        return pruned
