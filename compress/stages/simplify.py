"""Stage `simplify`: take out what can go without changing an output, and prove it on images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compress.stages.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from compress.checkpoint import Model
    from compress.lab import Lab


class Simplify(Stage):
    """Remove rows of kernels that see nothing but padding, channels that are one number, and batch norms that do nothing.

    images: how many training images are looked at, and on how many validation images it is proved that all maps stay as they were.
    tolerance: the largest difference that is allowed, as a share of the largest magnitude in the map on the image; computed in double
    precision, before new biases are rounded to single. More fails the stage.
    silent: also remove channels that were one number on all those training images though their weights allow others, such as those whose
    ReLU never let anything through. On images of another kind they may speak: give it many `images`.
    """

    kind: ClassVar[str] = "simplify"
    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("torch", "torch-pruning")

    images: int = Field(32, ge=1, le=100_000)
    tolerance: float = Field(1e-6, gt=0, lt=1)
    silent: bool = False

    def needs_float(self) -> bool:
        """Always."""
        return True

    def splits(self) -> tuple[str, ...]:
        """Training images to find constants, validation to prove them."""
        return ("train", "val")

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves the smaller model in the folder, and what went in `simplified.json`."""
        import torch

        from compress.files import write_json
        from compress.pruning.simplify import simplify

        def shown(split: str) -> Iterator[Tensor]:
            samples = lab.split(split)
            return (torch.from_numpy(model.shown(samples[index].image)) for index in range(min(self.images, len(samples))))

        facts = simplify(model, lambda: shown("train"), lambda: shown("val"), self.tolerance, self.silent)
        write_json(lab.folder / "simplified.json", facts)
        lab.save(model, lab.folder)
        lab.add("", ".")
        return model
