"""Stage `distill`: train a student towards the maps and features of larger teachers, and two students towards each other's maps."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from compress.errors import CompressError, suggestion
from compress.processes import main_process, wait_for_everyone
from compress.stages.stage import Stage
from compress.training.settings import Schedule

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab
    from compress.models.contract import Algorithm

MapWeights = Annotated[dict[str, Annotated[float, Field(ge=0, le=1000)]], Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]
STUDENT, PEER = "student", "peer"


def one_or_several(written: object) -> object:
    """Refuse, in words of its own, what is neither a name nor a list of names."""
    names = written if isinstance(written, list | tuple) and written else [written]
    if written is not None and not all(isinstance(name, str) and name for name in names):
        raise ValueError("name a recipe, a checkpoint folder or an earlier stage, or give a list of them")
    return written


class Response(BaseModel):
    """How a student's maps are held against its teachers'.

    maps: the weight of each map's dice; the maps that the algorithm names, 1 each, unless said. A map that is not named is not used.
    dilate: side, in pixels, of the square by which the teachers' maps are dilated first; 2 in PP-OCRv2's CML, 1 for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    maps: MapWeights | None = None
    dilate: int = Field(1, ge=1, le=31)


class Feature(BaseModel):
    """Channel-wise distillation (Shu et al. 2021) from the first teacher.

    weight: of the term in the loss. tau: temperature of the softmax over positions.
    layers: patterns (`*` matches anything) of the layers that are compared; those that the algorithm names unless said.
    teacher_layers: the same in the teacher, where its layers have other names. They are paired in the networks' order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(1.0, gt=0, le=10_000)
    tau: float = Field(4.0, gt=0, le=1000)
    layers: tuple[Name, ...] = ()
    teacher_layers: tuple[Name, ...] = ()


class Mutual(BaseModel):
    """A second student, the peer, trained beside the first; each also learns from the other's maps by dice.

    weight: of the term in the loss. maps: as under `response`.
    peer: `perturbed`, the student's own weights with noise from the recipe's seed; `fresh`, new weights in the same widths; or an
    earlier stage or a checkpoint folder, of the same layers and widths.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(1.0, gt=0, le=1000)
    maps: MapWeights | None = None
    peer: str = Field("perturbed", min_length=1)


class Distill(Schedule, Stage):
    """Loss = (1 - weight) task + weight response + feature.weight feature + mutual.weight mutual.

    response: sum of dice(student map, teacher map) over the maps that the algorithm names. For DB these are the probability and the
    approximate binary map; the threshold map is left out. Of several teachers the student copies the mean map.
    feature: divergence between the features of student and first teacher, through a learned 1x1 convolution where widths differ.
    mutual: sum of dice(student map, peer's map). The peer has the same loss; the better of the two on validation is the stage's model.

    teacher: a recipe, whose last model is used and which is run first if it has not been, a checkpoint folder, an earlier stage, or a
    list of such. Teachers are frozen, their batch norms in evaluation mode. weight: share of the response in the loss; with 0, and
    without a teacher, the task has it all.
    """

    kind: ClassVar[str] = "distill"
    every_process: ClassVar[bool] = True

    teacher: Annotated[str | tuple[str, ...] | None, BeforeValidator(one_or_several)] = None
    weight: float = Field(0.9, ge=0, le=1)
    response: Response = Response()
    feature: Feature | None = None
    mutual: Mutual | None = None

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers as a tuple, the one that features are taken from first."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher or ()

    def other_models(self) -> tuple[str, ...]:
        """The teachers, and the peer where it is a model that exists."""
        peers = () if self.mutual is None or self.mutual.peer in ("perturbed", "fresh") else (self.mutual.peer,)
        return (*self.teachers, *peers)

    def response_weights(self, algorithm: Algorithm) -> dict[str, float]:
        """The weight of each map in the response; none where the response has no share in the loss."""
        return map_weights(self.response.maps, algorithm) if self.teachers and self.weight else {}

    def mutual_weights(self, algorithm: Algorithm) -> dict[str, float]:
        """The weight of each map between two students; none where there is one."""
        return map_weights(self.mutual.maps, algorithm) if self.mutual else {}

    def check(self, model: Model) -> None:
        """Refuse terms without a teacher, and maps and layers that the student has not."""
        from compress.training.features import matching_layers

        if not self.teachers and self.mutual is None:
            raise CompressError("name a `teacher`, or `mutual` for two students without one.")
        if not self.teachers and (self.feature or self.response != Response()):
            raise CompressError("`response` and `feature` need a `teacher`.")
        if self.teachers and not (self.weight or self.feature):
            raise CompressError("the teacher has no part in the loss: give `weight` a value above 0, or add `feature`.")
        if self.mutual and self.mutual.peer.endswith((".yml", ".yaml")):
            raise CompressError(f"mutual.peer: {self.mutual.peer} is a recipe; a peer is an earlier stage or a checkpoint folder.")
        if self.teachers and self.weight:
            check_names("response.maps", self.response_weights(model.algorithm), model.algorithm)
        if self.mutual:
            check_names("mutual.maps", self.mutual_weights(model.algorithm), model.algorithm)
        if self.feature:
            try:
                matching_layers(model.network, self.layers(model))
            except CompressError as error:
                raise CompressError(f"feature.layers: {error}") from None

    def check_others(self, model: Model, others: Mapping[str, Model]) -> None:
        """Refuse teachers without the maps and layers that are compared, and a peer of another architecture."""
        for name in self.teachers:
            self.check_teacher(model, others[name], features=bool(self.feature) and name == self.teachers[0])
        for name in self.other_models()[len(self.teachers) :]:
            if others[name].config != model.config:
                raise CompressError(f"mutual.peer: {name} is of another architecture than the student.")

    def check_teacher(self, model: Model, teacher: Model, *, features: bool) -> None:
        """Refuse a teacher without what is compared."""
        from compress.training.features import check_maps, paired_levels

        check_maps(model, teacher, tuple(self.response_weights(model.algorithm)))
        if features:
            paired_levels(model, teacher, self.layers(model), self.teacher_layers(teacher))

    def layers(self, model: Model) -> tuple[str, ...]:
        """Patterns of the student's layers."""
        return self.feature.layers or named_features(model.algorithm, "feature.layers")

    def teacher_layers(self, teacher: Model) -> tuple[str, ...]:
        """Patterns of the teacher's layers."""
        said = self.feature.teacher_layers or self.feature.layers
        return said or named_features(teacher.algorithm, "feature.teacher_layers")

    def apply(self, model: Model, lab: Lab) -> Model:
        """Leaves the best epoch on validation in the folder itself and the last one in `last`.

        Two students are trained in `student` and `peer`; the files of the better one are then copied into the folder itself.
        """
        import torch

        from compress.training.features import Adapters, paired_levels
        from compress.training.lessons import lessons
        from compress.training.loop import fit_together
        from compress.training.peers import second_student

        teachers = [lab.open_teacher(name) for name in self.teachers]
        for teacher in teachers:
            teacher.network.to(lab.device)
        students = {lab.folder: model}
        if self.mutual:
            peer = second_student(model, self.mutual.peer, lab.recipe.seed + 1, lab.open_teacher)
            students = {lab.folder / STUDENT: model, lab.folder / PEER: peer}
        levels, beside = None, []
        if self.feature:
            levels = paired_levels(model, teachers[0], self.layers(model), self.teacher_layers(teachers[0]))
            torch.manual_seed(lab.recipe.seed)
            beside = [Adapters(levels, len(students))]
        objective = lessons(self, list(students.values()), teachers, levels)
        fit_together(students, beside, objective, self, lab, label=self.name, folder=lab.folder)
        return keep_the_better(lab) if self.mutual else kept(lab)


def map_weights(said: Mapping[str, float] | None, algorithm: Algorithm) -> dict[str, float]:
    """The maps that a recipe names with their weights, else those that the algorithm names, 1 each."""
    return dict(said) if said is not None else dict.fromkeys(algorithm.copies, 1.0)


def check_names(place: str, weights: Mapping[str, float], algorithm: Algorithm) -> None:
    """Refuse maps that the algorithm does not name, and an algorithm that names none."""
    if not algorithm.copies:
        raise CompressError(f"{place}: the algorithm names no maps that a student could copy; use `weight: 0` and `feature`.")
    for name in weights:
        if name not in algorithm.copies:
            raise CompressError(f"{place}: there is no map '{name}' to copy{suggestion(name, algorithm.copies)}")


def named_features(algorithm: Algorithm, key: str) -> tuple[str, ...]:
    """The layers whose features the algorithm offers to be compared."""
    if not algorithm.features:
        raise CompressError(f"{key}: the algorithm names no layers of its own; name some here.")
    return algorithm.features


def kept(lab: Lab) -> Model:
    """The trained model in the stage's folder, with its rows."""
    from compress.checkpoint import load

    lab.add_trained()
    return load(lab.folder)


def keep_the_better(lab: Lab) -> Model:
    """Copy the student that is better on validation, the first of equals, into the stage's folder; the other gets rows of its own.

    Copied, not moved: a run that is cut off here finds both where their training left them.
    """
    from compress.lab import best_and_last

    main = f"val_{lab.task.main}"
    scores = {name: best_and_last(lab.folder / name, lab.task)[0][main] for name in (STUDENT, PEER)}
    better, other = (PEER, STUDENT) if lab.task.metric.gain(scores[STUDENT], scores[PEER]) > 0 else (STUDENT, PEER)
    if main_process():
        shutil.copytree(lab.folder / better, lab.folder, dirs_exist_ok=True)
    wait_for_everyone()
    model = kept(lab)
    lab.add_trained(other, other)
    return model
