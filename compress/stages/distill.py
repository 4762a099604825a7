"""Stage `distill`: train a student towards the outputs and features of larger teachers, and two students towards each other's."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from compress.errors import CompressError, suggestion
from compress.processes import main_process, wait_for_everyone
from compress.stages.stage import TRAINING, Stage
from compress.training.lesson_settings import Distillation, Response
from compress.training.settings import Schedule

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab
    from compress.models.contract import Algorithm

STUDENT, PEER = "student", "peer"


class Distill(Distillation, Schedule, Stage):
    """Train towards the outputs and features of teachers, and two students towards each other's outputs.

    The keys are those of :class:`compress.training.lesson_settings.Distillation` and of what trains.
    """

    kind: ClassVar[str] = "distill"
    version: ClassVar[int] = 2

    def reads(self) -> tuple[str, ...]:
        """What every training reads."""
        return TRAINING

    def schedule(self) -> Schedule:
        """Its own keys."""
        return self

    def other_models(self) -> tuple[str, ...]:
        """The teachers, and the peer where it is a model that exists; `check` refuses one that is a recipe."""
        peer = self.mutual.peer if self.mutual else "fresh"
        peers = () if peer in ("perturbed", "fresh") or peer.endswith((".yml", ".yaml")) else (peer,)
        return (*self.teachers, *peers)

    def needs_float(self) -> bool:
        """Where two students are trained."""
        return self.mutual is not None

    def check(self, model: Model) -> None:
        """Refuse terms without a teacher, and maps and layers that the student has not."""
        from compress.training.features import matching_layers

        if not self.teachers and self.mutual is None:
            raise CompressError("name a `teacher`, or `mutual` for two students without one.")
        if not self.teachers and (self.feature or self.response != Response()):
            raise CompressError("`response` and `feature` need a `teacher`.")
        by_labels = self.labels == "teacher"
        if self.teachers and not (self.weight or self.feature or by_labels):
            raise CompressError("the teacher has no part in the loss: give `weight` a value above 0, or add `feature`.")
        if (self.cache or by_labels) and len(self.teachers) != 1:
            raise CompressError(f"`cache` and `labels: teacher` take one teacher, not {len(self.teachers)}.")
        if self.cache and (self.feature or not self.weight):
            raise CompressError("`cache` keeps what the response copies: give `weight` a value above 0, and leave `feature` out.")
        if self.maps_precision and not (self.cache or by_labels):
            raise CompressError("`maps_precision` is that of kept maps: give `cache: true` or `labels: teacher`, or leave it out.")
        if self.mutual and self.mutual.peer.endswith((".yml", ".yaml")):
            raise CompressError(f"mutual.peer: {self.mutual.peer} is a recipe; a peer is an earlier stage or a checkpoint folder.")
        if self.teachers and self.weight:
            check_names("response.maps", self.response_weights(model.algorithm), model.algorithm)
            check_names("response.teacher_maps", self.response.teacher_maps, model.algorithm)
            check_divergences(self.response, model.algorithm)
            check_dilation(self.response, self.response_weights(model.algorithm), model.algorithm)
        if self.mutual:
            check_names("mutual.maps", self.mutual_weights(model.algorithm), model.algorithm)
            self.mutual_layers(model.algorithm)
        if self.feature:
            try:
                matching_layers(model.network, self.layers(model.algorithm))
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
        """Refuse a teacher without what is compared or kept."""
        from compress.training.features import check_maps, paired_levels
        from compress.training.teacher_maps import check_can_be_kept, check_can_correct

        if teacher.algorithm.alphabet != model.algorithm.alphabet:
            raise CompressError("the teacher has another alphabet than the student: their classes cannot be compared; give both the same.")
        names = {name: self.response.sources(name) for name in self.response_weights(model.algorithm)}
        check_maps(model, teacher, names, over_time=[name for name in names if self.response.of_logits(name) == "time_kl"])
        if self.cache:
            check_can_be_kept(teacher, self.copied_maps(model.algorithm))
        if self.labels == "teacher":
            check_can_correct(teacher)
        if features:
            paired_levels(model, teacher, self.layers(model.algorithm), self.teacher_layers(teacher.algorithm))

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
            levels = paired_levels(model, teachers[0], self.layers(model.algorithm), self.teacher_layers(teachers[0].algorithm))
            torch.manual_seed(lab.recipe.seed)
            beside = [Adapters(levels, len(students))]
        prepared = self.prepared(lab, model, teachers)
        watching = teachers if (self.feature or self.weight) and not self.cache else []
        objective = lessons(self, list(students.values()), watching, levels)
        fit_together(students, beside, objective, self, prepared, label=self.name, folder=lab.folder)
        return keep_the_better(lab) if self.mutual else kept(lab)

    def prepared(self, lab: Lab, model: Model, teachers: Sequence[Model]) -> Lab:
        """`lab` whose training images carry the teacher's maps, and whose ground truth it has corrected, where the stage says so."""
        from compress.training.devices import mixed_precision
        from compress.training.teacher_maps import taught_split

        by_labels = self.labels == "teacher"
        if not (self.cache or by_labels):
            return lab
        names = self.copied_maps(model.algorithm)
        precision = mixed_precision(self.maps_precision or self.precision, lab.device)
        split = taught_split(teachers[0], lab.split("train"), names, lab, carry=self.cache, correct=by_labels, precision=precision)
        return replace(lab, splits={**lab.splits, "train": split})


def check_names(place: str, names: Iterable[str], algorithm: Algorithm) -> None:
    """Refuse maps that the algorithm does not name, and an algorithm that names none."""
    if not algorithm.copies:
        raise CompressError(f"{place}: the algorithm names no maps that a student could copy; use `weight: 0` and `feature`.")
    for name in names:
        if name not in algorithm.copies:
            raise CompressError(f"{place}: there is no map '{name}' to copy{suggestion(name, algorithm.copies)}")


def check_divergences(response: Response, algorithm: Algorithm) -> None:
    """Refuse a divergence for an output that the algorithm does not name, or for one that is no logits of classes."""
    if isinstance(response.divergence, str):
        return
    check_names("response.divergence", response.divergence, algorithm)
    for name in response.divergence:
        if algorithm.copies[name] == "dice":
            raise CompressError(f"response.divergence: '{name}' is a map, which is compared by dice alone; leave it out.")


def check_dilation(response: Response, names: Iterable[str], algorithm: Algorithm) -> None:
    """Refuse to dilate what is no map of an image."""
    other = next((name for name in names if algorithm.copies[name] != "dice"), None)
    if response.dilate > 1 and other:
        raise CompressError(f"response.dilate: '{other}' is no map with pixels to dilate; leave it out.")


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
