"""Losses between a student's maps and features and a teacher's, or another student's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div, max_pool2d, pad

Maps = Mapping[str, Tensor]


def response_loss(student: Maps, teacher: Maps, weights: Mapping[str, float]) -> Tensor:
    """Sum over the maps that `weights` names of weight times the dice loss between two soft maps valued in 0..1, any equal shape."""
    return sum(weight * soft_dice(student[name].float(), teacher[name].float()) for name, weight in weights.items())


def soft_dice(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - 2 sum(pt) / (sum(p^2) + sum(t^2)) (Milletari et al. 2016): zero only where the maps are equal, also where they are soft."""
    overlap = 2 * (prediction * target).sum()
    return 1 - overlap / (prediction.square().sum() + target.square().sum() + 1e-6)


def mean_maps(teachers: Sequence[Maps], names: Sequence[str]) -> dict[str, Tensor]:
    """The mean over several teachers of each map in `names`, float32."""
    return {name: torch.stack([maps[name].float() for maps in teachers]).mean(0) for name in names}


def dilated(maps: Tensor, side: int) -> Tensor:
    """Grey dilation of (B, C, H, W) maps by a `side` x `side` square, anchored as `cv2.dilate` anchors it.

    With a side of 2 the f_dila of PP-OCRv2 (Du et al. 2021, section 2.1, CML), there on binary maps. A side of 1 changes nothing.
    """
    before, after = side // 2, side - 1 - side // 2
    return max_pool2d(pad(maps, (before, after, before, after), value=float("-inf")), side, 1)


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], tau: float) -> Tensor:
    """Mean over levels of :func:`channel_wise`, so that a weight means the same for any number of levels."""
    return sum(channel_wise(one, other, tau) for one, other in zip(student, teacher, strict=True)) / len(student)


def channel_wise(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Channel-wise distillation of (B, C, H, W) features of any values (Shu et al. 2021, equations 3 and 4), mean over the batch.

    Each channel becomes a distribution over its positions, softmax(y / tau); the loss is tau^2 / C times the sum over channels of
    the Kullback-Leibler divergence of the student's distribution from the teacher's.
    """
    batch, channels = student.shape[:2]
    log_student = (student.float().flatten(2) / tau).log_softmax(2)
    log_teacher = (teacher.float().flatten(2) / tau).log_softmax(2)
    return tau**2 / (channels * batch) * kl_div(log_student, log_teacher, reduction="sum", log_target=True)
