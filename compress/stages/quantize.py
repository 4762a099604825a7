"""Stage `quantize`: to int8, after training (PTQ) or with training (QAT)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compress.quantization.settings import Quantizers
from compress.stages.stage import Stage
from compress.training.settings import Schedule

if TYPE_CHECKING:
    from torch import nn

    from compress.checkpoint import Model
    from compress.lab import Lab


ORDERING = 16  # pictures by which layers are put in order; each layer takes a pass over all of them


class Quantize(Quantizers, Schedule, Stage):
    """Fold batch norms, put NNCF's quantizers in, and for `qat` train on with them.

    mode: `ptq` calibrates on training pictures as they are at inference; `qat` starts from that and trains by the schedule.
    calibration: how many pictures. keep_float: patterns of layers that stay float, besides those that give the maps.
    max_drop: largest loss of the main metric of the calibrated model against the parent on validation, before any training;
    as few layers as that needs are kept float, the most sensitive first.
    freeze_ranges: for `qat`, the share of the steps after which the quantizers' ranges stop learning; 1 is never. `freeze_norms` does
    the same for batch norms that could not be folded.
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
    max_drop: float | None = Field(None, ge=0)
    freeze_ranges: float = Field(1.0, ge=0, le=1)
    control: bool = False

    def check(self, model: Model) -> None:
        """Refuse a pattern that matches no layer, and a percentile that is not used."""
        from compress.pruning.groups import kept_layers

        kept_layers(model, "model", self.keep_float)
        self.check_quantizers()

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves the trained model in the folder itself, and before it the calibrated one in `ptq`; the float control in `control`."""
        from compress.checkpoint import example_input
        from compress.processes import agreed
        from compress.quantization.calibration import calibration_batches
        from compress.quantization.folding import fold_batch_norms
        from compress.quantization.nncf_torch import config_json, quantize

        example = example_input(model)
        folded = model.with_network(copy.deepcopy(model.network).cpu())
        fold_batch_norms(folded.network, example)

        def quantized(kept: Sequence[str]) -> nn.Module:
            pictures = calibration_batches(model, lab, self.calibration)
            return quantize(folded.network, pictures, example, (*model.algorithm.kept_layers, *self.keep_float, *kept), self)

        facts = {}
        if self.max_drop is not None:
            facts = {"accuracy_control": agreed(lambda: self.chosen_layers(folded, lab, quantized))}
        network = quantized(facts["accuracy_control"]["kept_float"] if facts else ())
        result = model.with_network(network, config_json(network))
        if self.mode == "ptq":
            lab.save(result, lab.folder)
            lab.add("", ".", **facts)
            return result
        lab.save(result, lab.folder / "ptq")
        lab.add("ptq", "ptq", **facts)
        return self.train(folded, result, lab, facts)

    def chosen_layers(self, folded: Model, lab: Lab, quantized: Callable[[Sequence[str]], nn.Module]) -> dict[str, Any]:
        """Which layers stay float for `max_drop`, and how that was found."""
        from compress.quantization.accuracy_control import control_accuracy, sensitive_first
        from compress.quantization.sensitivity import quantization_sensitivity

        def order() -> list[str]:
            found = quantization_sensitivity(
                folded,
                lab,
                artefact=self.name,
                images=ORDERING,
                top=0,
                calibration=self.calibration,
                keep_float=self.keep_float,
                settings=self,
            )
            return sensitive_first(found)

        return control_accuracy(folded, lab, quantized, order, self.max_drop)

    def train(self, folded: Model, calibrated: Model, lab: Lab, facts: dict[str, Any]) -> Model:
        """Train the calibrated model, after the float control where one is wanted."""
        from compress.quantization.freezing import hold_ranges
        from compress.training.loop import fit, own_loss

        def after_backward(network: nn.Module, share: float) -> None:
            if share >= self.freeze_ranges:
                hold_ranges(network)

        objective, hooks = own_loss(folded.algorithm), {"after_backward": after_backward}
        if self.control:
            fit(folded, objective, self, lab, label=f"{self.name}/control", folder=lab.folder / "control", **hooks)
            lab.add_trained("control", "control")
        result = fit(calibrated, objective, self, lab, label=self.name, folder=lab.folder, **hooks)
        lab.add_trained(**facts)
        return result
