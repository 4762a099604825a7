"""Stage `prune`: remove channels, then put the batch-norm statistics right."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compress.pruning.settings import Pruning
from compress.stages.stage import TRAINING, Stage

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


class Prune(Pruning, Stage):
    """Remove whole channels, coupled layers together (torch-pruning's dependency graph), the unimportant ones first.

    The keys are those of :class:`compress.pruning.settings.Pruning`.
    """

    kind: ClassVar[str] = "prune"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("torch", "torch-pruning")

    def pruning(self) -> Pruning:
        """Its own keys."""
        return self

    def is_validated(self) -> bool:
        """Whether the validation split decides what is removed."""
        return self.allocation == "sensitivity" or self.recover is not None

    def every_process(self) -> bool:
        """Always: the main process decides, and the others take what it has left, to recover with it."""
        return True

    def needs_float(self) -> bool:
        """Always."""
        return True

    def splits(self) -> tuple[str, ...]:
        """Training images for the statistics; validation where it decides."""
        return ("train", "val") if self.is_validated() else ("train",)

    def reads(self) -> tuple[str, ...]:
        """What training reads, as its samples are drawn alike; of the latency section what its target is measured by."""
        samples = TRAINING if self.is_validated() else ("seed", "model", "augment")
        measured = {"macs": ("latency.input",), "latency": ("latency.input", "latency.threads", "latency.rounds")}
        return (*samples, *(measured.get(self.target.kind, ()) if self.target else ()))

    def check(self, model: Model) -> None:
        """Refuse a pattern that matches no layer and a backbone that the network has not."""
        from compress.pruning.groups import kept_layers

        kept_layers(model, self.scope, self.protect)

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves the model before the statistics are moved in `raw` and after it, or after recovery, in the folder itself."""
        from compress.files import write_json
        from compress.processes import main_process
        from compress.pruning.groups import widths
        from compress.pruning.shrink import shrink

        before = widths(model.network)
        pruned = shrink(model, self, lab)
        after = widths(pruned.network)
        if main_process():
            write_json(lab.folder / "channels.json", {name: [before[name], after[name]] for name in before})
        lab.add("raw", "raw")
        lab.add("", ".")
        return pruned
