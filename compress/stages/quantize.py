"""Stage `quantize`: to int8, after training (PTQ) or with training (QAT)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress.stages.stage import Stage
from compress.training.settings import Schedule

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


class Quantize(Schedule, Stage):
    """Fold batch norms, put NNCF's quantizers in, and for `qat` train on with them.

    mode: `ptq` calibrates on training pictures as they are at inference; `qat` starts from that and trains by the schedule.
    calibration: how many pictures. keep_float: patterns of layers that stay float, besides those that give the maps.
    precision: fp32 unless said, because under bf16 autocast the quantizers' scales are rounded too.
    control: for `qat`, also train the same folded float network by the same schedule, so that a gain of QAT can be told from a gain
    of more training; its row is `<name>/control`.
    """

    kind: ClassVar[str] = "quantize"
    every_process: ClassVar[bool] = True

    mode: Literal["ptq", "qat"] = "qat"
    epochs: int = Field(1, ge=1, le=100_000)
    calibration: int = Field(64, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    keep_float: tuple[str, ...] = ()
    control: bool = False

    def check(self, model: Model) -> None:
        """Refuse a pattern that matches no layer."""
        from compress.pruning.groups import kept_layers

        kept_layers(model, "model", self.keep_float)

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves the trained model in the folder itself, and before it the calibrated one in `ptq`; the float control in `control`."""
        from compress.checkpoint import example_input
        from compress.quantization.calibration import calibration_batches
        from compress.quantization.folding import fold_batch_norms
        from compress.quantization.nncf_torch import config_json, quantize
        from compress.training.loop import fit

        example = example_input(model)
        folded = copy.deepcopy(model.network).cpu()
        fold_batch_norms(folded, example)
        pictures = calibration_batches(model, lab, self.calibration)
        quantized = quantize(folded, pictures, example, (*model.algorithm.map_layers, *self.keep_float))
        result = model.with_network(quantized, config_json(quantized))
        if self.mode == "ptq":
            lab.save(result, lab.folder)
            lab.add("", ".")
            return result
        lab.save(result, lab.folder / "ptq")
        lab.add("ptq", "ptq")

        def objective(network, images, targets):
            return model.algorithm.loss(network(images), targets)

        if self.control:
            fit(model.with_network(folded), objective, self, lab, label=f"{self.name}/control", folder=lab.folder / "control")
            lab.add_trained("control", "control")
        result = fit(result, objective, self, lab, label=self.name, folder=lab.folder)
        lab.add_trained()
        return result
