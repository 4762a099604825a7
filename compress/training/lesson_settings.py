"""The settings of distillation: what a student is taught, and by whom; read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from compress.errors import CompressError
from compress.models.contract import Algorithm, Divergence

Weights = Annotated[dict[str, Annotated[float, Field(ge=0, le=1000)]], Field(min_length=1)]
OfLogits = Literal["kl", "dkd", "time_kl"]
Name = Annotated[str, Field(min_length=1)]
Sources = Name | Annotated[tuple[Name, ...], Field(min_length=1)]


def one_or_several(written: object) -> object:
    """Refuse, in words of its own, what is neither a name nor a list of names."""
    names = written if isinstance(written, list | tuple) and written else [written]
    if written is not None and not all(isinstance(name, str) and name for name in names):
        raise ValueError("name a recipe, a checkpoint folder or an earlier stage, or give a list of them")
    return written


class Response(BaseModel):
    """How a student's outputs are held against its teachers'.

    maps: the weight of each output; those that the algorithm names, 1 each, unless said. An output that is not named is not used.
    teacher_maps: the teacher's output that each of the student's is held against: that of the same name, unless said. Of several the
        highest value counts at each pixel. Where a teacher's map has another resolution, it is resized to the student's.
    dilate: side, in pixels, of the square by which the teachers' maps are dilated first; 2 in PP-OCRv2's CML, 1 for none.
    divergence: how logits of classes are compared, `kl` unless said: `dkd` is decoupled (Zhao et al. 2022), `time_kl` compares means over
        time, for which teachers may have another number of steps. One for all outputs, or a mapping of outputs to theirs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    maps: Weights | None = None
    teacher_maps: dict[Name, Sources] = {}
    dilate: int = Field(1, ge=1, le=31)
    divergence: OfLogits | dict[Name, OfLogits] = "kl"

    def of_logits(self, name: str) -> OfLogits:
        """How the logits `name` are compared."""
        return self.divergence if isinstance(self.divergence, str) else self.divergence.get(name, "kl")

    def sources(self, name: str) -> tuple[str, ...]:
        """The teacher's outputs that the student's output `name` is held against."""
        found = self.teacher_maps.get(name, name)
        return (found,) if isinstance(found, str) else found


class Feature(BaseModel):
    """What the features of the student are held against: those of the first teacher.

    weight: of the term in the loss. distance: `channel_wise` (Shu et al. 2021), or `l2`, the mean squared difference. tau: temperature of
    the softmax over positions, for `channel_wise`.
    layers: patterns (`*` matches anything) of the layers that are compared; those that the algorithm names unless said.
    teacher_layers: the same in the teacher, where its layers have other names. They are paired in the networks' order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weight: float = Field(1.0, gt=0, le=10_000)
    distance: Literal["channel_wise", "l2"] = "channel_wise"
    tau: float = Field(4.0, gt=0, le=1000)
    layers: tuple[Name, ...] = ()
    teacher_layers: tuple[Name, ...] = ()


class Mutual(BaseModel):
    """A second student, the peer, trained beside the first; each also learns from the other's outputs.

    weight: of the term in the loss. maps: as under `response`.
    feature: weight, within the term, of the mean squared difference of the features that the algorithm names; 1 in PP-OCRv3's U-DML, whose
        two students differ in nothing but their weights.
    peer: `perturbed`, the student's own weights with noise from the recipe's seed; `fresh`, new weights in the same widths; or an
    earlier stage or a checkpoint folder, of the same layers and widths.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weight: float = Field(1.0, gt=0, le=1000)
    maps: Weights | None = None
    feature: float = Field(0.0, ge=0, le=10_000)
    peer: str = Field("perturbed", min_length=1)


class Distillation(BaseModel):
    """Loss = (1 - weight) task + weight response + feature.weight feature + mutual.weight mutual.

    response: sum over the outputs that the algorithm names of the divergence of the student's from the teacher's: dice of maps, for DB the
    probability and the approximate binary map, and Kullback-Leibler of classes. Of several teachers the student copies the mean output.
    feature: divergence between the features of student and first teacher, through a learned 1x1 convolution where widths differ.
    mutual: the same sum between student and peer, and mutual.feature times the mean squared difference of their features. The peer has
    the same loss; the better of the two on validation is the stage's model.

    teacher: a recipe, whose last model is used and which is run first if it has not been, a checkpoint folder, an earlier stage, or a
    list of such. Teachers are frozen, their batch norms in evaluation mode. weight: share of the response in the loss; with 0, and
    without a teacher, the task has it all.

    cache: compute the teacher's maps once an image, at the size at which it is evaluated, and let them go through the random views with
    the image; a step then costs the same with any teacher. maps_precision: what these maps are computed in, the training's `precision`
    unless said: in bf16 a network of dense convolutions is fast on CPUs on which a small student is not.
    labels: `teacher` lets what the teacher finds correct the ground truth; for words: do-not-care ones that it finds count again, what it
    finds elsewhere is do-not-care, and images without any get its words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    teacher: Annotated[str | tuple[str, ...] | None, BeforeValidator(one_or_several)] = None
    weight: float = Field(0.9, ge=0, le=1)
    response: Response = Response()
    feature: Feature | None = None
    mutual: Mutual | None = None
    cache: bool = False
    maps_precision: Literal["auto", "fp32", "bf16"] | None = None
    labels: Literal["given", "teacher"] = "given"

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers as a tuple, the one that features are taken from first."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher or ()

    def response_weights(self, algorithm: Algorithm) -> dict[str, float]:
        """The weight of each output in the response; none where the response has no share in the loss."""
        return output_weights(self.response.maps, algorithm) if self.teachers and self.weight else {}

    def divergences(self, algorithm: Algorithm) -> dict[str, Divergence]:
        """How each output of an algorithm is compared: as it says, or logits of classes as `response.divergence` does."""
        return {name: kind if kind == "dice" else self.response.of_logits(name) for name, kind in algorithm.copies.items()}

    def copied_maps(self, algorithm: Algorithm) -> tuple[str, ...]:
        """The teachers' outputs that the response needs."""
        return tuple(dict.fromkeys(other for name in self.response_weights(algorithm) for other in self.response.sources(name)))

    def mutual_weights(self, algorithm: Algorithm) -> dict[str, float]:
        """The weight of each output between two students; none where there is one."""
        return output_weights(self.mutual.maps, algorithm) if self.mutual else {}

    def mutual_layers(self, algorithm: Algorithm) -> tuple[str, ...]:
        """Patterns of the layers whose features two students compare; none without `mutual.feature`."""
        return named_features(algorithm, "mutual.feature") if self.mutual and self.mutual.feature else ()

    def layers(self, student: Algorithm) -> tuple[str, ...]:
        """Patterns of the student's layers whose features are compared; none without `feature`.

        Raises CompressError where neither the recipe nor the algorithm names any.
        """
        return (self.feature.layers or named_features(student, "feature.layers")) if self.feature else ()

    def teacher_layers(self, teacher: Algorithm) -> tuple[str, ...]:
        """The same of the first teacher's."""
        if not self.feature:
            return ()
        return self.feature.teacher_layers or self.feature.layers or named_features(teacher, "feature.teacher_layers")


def output_weights(said: Mapping[str, float] | None, algorithm: Algorithm) -> dict[str, float]:
    """The outputs that a recipe names with their weights, else those that the algorithm names, 1 each."""
    return dict(said) if said is not None else dict.fromkeys(algorithm.copies, 1.0)


def named_features(algorithm: Algorithm, key: str) -> tuple[str, ...]:
    """The layers whose features the algorithm offers to be compared."""
    if not algorithm.features:
        raise CompressError(f"{key}: the algorithm names no layers of its own; name some here.")
    return algorithm.features
