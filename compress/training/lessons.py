"""What the students of a `distill` stage are told about one batch: the task, the teachers' maps and features, each other's maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from compress.checkpoint import Model
from compress.data.training import CARRIED
from compress.models.contract import Algorithm
from compress.training.distillation import dilated, feature_loss, mean_outputs, response_loss, squared_difference
from compress.training.features import Levels, matching_layers, outputs_of
from compress.training.lesson_settings import Distillation
from compress.training.loop import Batch, JointObjective
from compress.training.modes import show_all_maps
from compress.training.teacher_maps import WHOLE


@dataclass(frozen=True)
class Given:
    """What a network gave for one batch: its training maps, the features of the levels that are compared with a teacher's, and those that
    two students compare.
    """

    maps: dict[str, Tensor]
    features: list[Tensor]
    mutual: list[Tensor] = field(default_factory=list)


def lessons(stage: Distillation, students: Sequence[Model], teachers: Sequence[Model], levels: Levels | None) -> JointObjective:
    """The objective of `fit_together` for the students' networks and, where there are `levels`, the adapters after them.

    The teachers, on the students' device, are frozen here; there are none where batches carry their maps. The loss is the sum of the
    students' losses; the names of its parts start with `peer_` for the second student.
    """
    for teacher in teachers:
        show_all_maps(teacher.network.requires_grad_(False))
    algorithm = students[0].algorithm
    here, there = (levels.student, levels.teacher) if levels else ((), ())
    shared = matching_layers(students[0].network, stage.mutual_layers(algorithm))

    def objective(modules: Sequence[nn.Module], images: Tensor, targets: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        extra = algorithm.extra(targets)
        given = [run(student, network, here, shared, images, *extra) for student, network in zip(students, modules, strict=False)]
        if levels:
            adapted = modules[-1]([one.features for one in given])
            given = [replace(one, features=features) for one, features in zip(given, adapted, strict=True)]
        taught = teach(stage, algorithm, teachers, there, images, targets) if teachers else None
        if stage.cache:
            taught = recalled(stage, algorithm, targets)
        total, parts = torch.zeros((), device=images.device), dict[str, Tensor]()
        for prefix, own, other in zip(("", "peer_"), given, reversed(given), strict=False):
            loss, named = student_loss(stage, algorithm, own, targets, taught, other)
            total = total + loss
            parts |= {prefix + name: part.detach() for name, part in named.items()}
        return total, parts

    return objective


def run(model: Model, network: Callable[..., dict[str, Tensor]], layers: Sequence[str], shared: Sequence[str], *given: Any) -> Given:
    """Call `network`, the model's own or a wrapper around it, and keep what leaves `layers`, and the `shared` ones."""
    with outputs_of(model.network, [*layers, *shared]) as seen:
        maps = network(*given)
    return Given(maps, [seen[name] for name in layers], [seen[name] for name in shared])


@torch.no_grad()
def teach(
    stage: Distillation, algorithm: Algorithm, teachers: Sequence[Model], layers: Sequence[str], images: Tensor, targets: Batch
) -> Given:
    """The teachers' mean maps, and the first one's features. `targets`: the student's."""
    given = [(normalised_for(teacher.algorithm, images, algorithm), *teacher.algorithm.extra(targets)) for teacher in teachers]
    first = run(teachers[0], teachers[0].network, layers, (), *given[0])
    others = [teacher.network(*one) for teacher, one in zip(teachers[1:], given[1:], strict=True)]
    maps = mean_outputs([first.maps, *others], stage.copied_maps(algorithm))
    return Given(as_student(stage, algorithm, maps), first.features)


def recalled(stage: Distillation, algorithm: Algorithm, targets: Batch) -> Given:
    """The teacher's maps as a batch carries them."""
    maps = {name: targets[CARRIED + name].float() / WHOLE for name in stage.copied_maps(algorithm)}
    return Given(as_student(stage, algorithm, maps), [])


def as_student(stage: Distillation, algorithm: Algorithm, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A teacher's outputs by the names of the student's that they are compared with, dilated where the stage says so."""
    named = {
        name: reduce(torch.maximum, [maps[other] for other in stage.response.sources(name)]) for name in stage.response_weights(algorithm)
    }
    side = stage.response.dilate
    return {name: dilated(tensor, side) for name, tensor in named.items()} if side > 1 else named


def normalised_for(teacher: Algorithm, images: Tensor, student: Algorithm) -> Tensor:
    """(B, 3, H, W) images, normalised for the student, as the teacher was trained to see them."""
    here, there = student.input, teacher.input
    if (here.mean, here.std) == (there.mean, there.std):
        return images
    ours, theirs = (torch.tensor([one.mean, one.std], device=images.device)[..., None, None] for one in (here, there))
    return (images * ours[1] + ours[0] - theirs[0]) / theirs[1]


def resized(maps: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(B, C, H, W) maps at the resolution of those of the same name in `like`; other outputs as they are."""
    return {
        name: interpolate(tensor, like[name].shape[2:], mode="bilinear", align_corners=False)
        if tensor.dim() == 4 and tensor.shape != like[name].shape
        else tensor
        for name, tensor in maps.items()
    }


def student_loss(
    stage: Distillation, algorithm: Algorithm, own: Given, targets: Batch, taught: Given | None, other: Given
) -> tuple[Tensor, dict[str, Tensor]]:
    """One student's loss, as the stage's docstring writes it, and its parts. No gradient reaches `other`, the second student."""
    loss, parts = algorithm.loss(own.maps, targets)
    weights = stage.response_weights(algorithm)
    if weights and taught:
        parts["response"] = response_loss(own.maps, resized(taught.maps, own.maps), weights, stage.divergences(algorithm))
        loss = (1 - stage.weight) * loss + stage.weight * parts["response"]
    if stage.feature and taught:
        compared = own.features, taught.features
        parts["feature"] = squared_difference(*compared) if stage.feature.distance == "l2" else feature_loss(*compared, stage.feature.tau)
        loss = loss + stage.feature.weight * parts["feature"]
    if stage.mutual:
        copied = {name: tensor.detach() for name, tensor in other.maps.items()}
        parts["mutual"] = response_loss(own.maps, copied, stage.mutual_weights(algorithm), stage.divergences(algorithm))
        if stage.mutual.feature:
            parts["mutual_feature"] = squared_difference(own.mutual, [features.detach() for features in other.mutual])
            loss = loss + stage.mutual.weight * stage.mutual.feature * parts["mutual_feature"]
        loss = loss + stage.mutual.weight * parts["mutual"]
    return loss, parts
