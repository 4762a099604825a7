"""Stage `quantize`: to int8, after training (PTQ) or with training (QAT)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from compress.quantization.settings import Quantizers
from compress.stages.stage import TRAINING, Stage
from compress.training.settings import Schedule

if TYPE_CHECKING:
    from torch import nn

    from compress.checkpoint import Model
    from compress.lab import Lab


EQUALIZING = 16  # images by which ranges of channels are measured
ORDERING = 16  # images by which layers are put in order; each layer is tried on all of them


class QatSchedule(Schedule):
    """How QAT trains. precision: fp32 unless said, because under bf16 autocast the quantizers' scales are rounded too.

    lr: in relation to what is usual in a weight's channels, since batch norms, which level channels, are folded; see
    :mod:`compress.quantization.relative_steps`.
    """

    relative_steps: ClassVar[bool] = True

    precision: Literal["auto", "fp32", "bf16"] = "fp32"


class Quantize(Quantizers, Stage):
    """Fold batch norms, put NNCF's quantizers in, and for `qat` train on with them.

    mode: `ptq` calibrates on training images as they are at inference; `qat` starts from that and trains by `train`.
    train: the schedule of `qat`, which needs one, and `ptq` has none.
    calibration: how many images. keep_float: patterns of layers that stay float, besides those that give the outputs.
    max_drop: largest loss of the main metric, in its own unit, of the calibrated model against the parent, on validation and before any
    training; as few layers as that needs are kept float, the most sensitive first.
    freeze_ranges: for `qat`, the share of the steps after which the quantizers' ranges stop learning; 1 is never. `freeze_norms` does
    the same for batch norms that could not be folded.
    equalize: first bring channels to like ranges, which changes nothing in float; see :mod:`compress.quantization.equalization`.
    control: for `qat`, also train the same folded float network by the same schedule, so that a gain of QAT can be told from a gain
    of more training; its row is `<name>/control`.
    """

    kind: ClassVar[str] = "quantize"
    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("torch", "nncf")
    is_quantized: ClassVar[bool] = True

    mode: Literal["ptq", "qat"] = "qat"
    train: QatSchedule | None = None
    calibration: int = Field(64, ge=1, le=100_000)
    keep_float: tuple[str, ...] = ()
    equalize: bool = False
    max_drop: float | None = Field(None, ge=0)
    freeze_ranges: float = Field(1.0, ge=0, le=1)
    control: bool = False

    @model_validator(mode="after")
    def check_mode(self) -> Quantize:
        """A schedule and what belongs to it for `qat`, and only there."""
        if self.mode == "qat" and self.train is None:
            raise ValueError("mode: qat trains, so say how, such as `train: {epochs: 1, lr: 1.0e-4}`, or set mode: ptq")
        unread = [name for name in ("train", "freeze_ranges", "control") if getattr(self, name) != type(self).model_fields[name].default]
        if self.mode == "ptq" and unread:
            raise ValueError(f"{unread[0]} has no effect with mode: ptq, which trains nothing; leave it out, or set mode: qat")
        return self

    def needs_float(self) -> bool:
        """Always."""
        return True

    def splits(self) -> tuple[str, ...]:
        """Training images for the calibration; validation where something is chosen by it."""
        return ("train",) if self.mode == "ptq" and self.max_drop is None else ("train", "val")

    def reads(self) -> tuple[str, ...]:
        """What training reads; calibration shows images as its parent's checkpoint says."""
        if self.mode == "qat":
            return TRAINING
        return () if self.max_drop is None else ("evaluate",)

    def schedule(self) -> Schedule | None:
        """The `train` section."""
        return self.train

    def every_process(self) -> bool:
        """Always: those that train later calibrate alike, and a `max_drop` is agreed on."""
        return True

    def is_qat(self) -> bool:
        """For `qat`."""
        return self.mode == "qat"

    def looks_at(self) -> int:
        """Those of the calibration."""
        return self.calibration

    def check(self, model: Model) -> None:
        """Refuse a pattern that matches no layer, and a percentile that is not used."""
        from compress.pruning.groups import kept_layers

        kept_layers(model, "model", self.keep_float)
        self.check_quantizers()

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves the trained model in the folder itself, and before it the calibrated one in `ptq`; the float control in `control`."""
        from compress.checkpoint import example_input
        from compress.processes import agreed
        from compress.progress import counted
        from compress.quantization.calibration import calibration_batches
        from compress.quantization.equalization import equalize
        from compress.quantization.folding import fold_batch_norms
        from compress.quantization.nncf_torch import config_json, quantize

        example = example_input(model)
        folded = model.with_network(copy.deepcopy(model.network).cpu())
        fold_batch_norms(folded.network, example)
        facts: dict[str, Any] = {}
        if self.equalize:
            count = min(self.calibration, EQUALIZING, len(lab.split("train")))
            with lab.bar(f"{lab.name}: equalization", count) as bar:
                facts["equalized"] = equalize(folded, counted(calibration_batches(model, lab, count), bar))

        def quantized(kept: Sequence[str]) -> nn.Module:
            with lab.bar(f"{lab.name}: calibration", min(self.calibration, len(lab.split("train")))) as bar:
                images = counted(calibration_batches(model, lab, self.calibration), bar)
                return quantize(folded.network, images, example, (*model.algorithm.kept, *self.keep_float, *kept), self)

        kept: Sequence[str] = ()
        if self.max_drop is not None:
            facts["score_control"] = agreed(lambda: self.chosen_layers(folded, lab, quantized))
            kept = facts["score_control"]["kept_float"]
        network = quantized(kept)
        result = model.with_network(network, config_json(network))
        if self.train is None:
            lab.save(result, lab.folder)
            lab.add("", ".", **facts)
            return result
        lab.save(result, lab.folder / "ptq")
        lab.add("ptq", "ptq", **facts)
        return self.trained(folded, result, lab, self.train, facts)

    def chosen_layers(self, folded: Model, lab: Lab, quantized: Callable[[Sequence[str]], nn.Module]) -> dict[str, Any]:
        """Which layers stay float for `max_drop`, and how that was found."""
        from compress.quantization.score_control import control_score, sensitive_first
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

        return control_score(folded, lab, quantized, order, self.max_drop or 0.0)

    def trained(self, folded: Model, calibrated: Model, lab: Lab, schedule: Schedule, facts: dict[str, Any]) -> Model:
        """The calibrated model trained, after the float control where one is wanted."""
        from compress.quantization.freezing import hold_ranges
        from compress.training.loop import fit, own_loss

        def after_backward(network: nn.Module, share: float) -> None:
            if share >= self.freeze_ranges:
                hold_ranges(network)

        objective, hooks = own_loss(folded.algorithm), {"after_backward": after_backward}
        if self.control:
            fit(folded, objective, schedule, lab, label=f"{self.name}/control", folder=lab.folder / "control", **hooks)
            lab.add_trained("control", "control")
        result = fit(calibrated, objective, schedule, lab, label=self.name, folder=lab.folder, **hooks)
        lab.add_trained(**facts)
        return result
