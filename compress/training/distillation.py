"""Losses between a student's outputs and features and a teacher's, or another student's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor
from torch.nn.functional import kl_div, max_pool2d, pad

from compress.models.contract import Divergence

Outputs = Mapping[str, Tensor]


def response_loss(student: Outputs, teacher: Outputs, weights: Mapping[str, float], copies: Mapping[str, Divergence]) -> Tensor:
    """Sum over the outputs that `weights` names of weight times the divergence of the student's from the teacher's, any equal shape.

    copies: output -> how it is compared, as `Algorithm.copies`.
    """
    parts = [weight * DIVERGENCES[copies[name]](student[name].float(), teacher[name].float()) for name, weight in weights.items()]
    return reduce(add, parts)


def soft_dice(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - 2 sum(pt) / (sum(p^2) + sum(t^2)) (Milletari et al. 2016): zero only where the maps are equal, also where they are soft."""
    overlap = 2 * (prediction * target).sum()
    return 1 - overlap / (prediction.square().sum() + target.square().sum() + 1e-6)


def class_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the softmax of the student's logits from that of the teacher's (Hinton et al. 2015), mean over all
    but the last axis, which is that of the classes.
    """
    log_student, log_teacher = (logits.flatten(0, -2).log_softmax(1) for logits in (student, teacher))
    return kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


DIVERGENCES: dict[Divergence, Callable[[Tensor, Tensor], Tensor]] = {"dice": soft_dice, "kl": class_divergence}


def mean_outputs(teachers: Sequence[Outputs], names: Sequence[str]) -> dict[str, Tensor]:
    """The mean over several teachers of each output in `names`, float32."""
    return {name: torch.stack([maps[name].float() for maps in teachers]).mean(0) for name in names}


def dilated(maps: Tensor, side: int) -> Tensor:
    """Grey dilation of (B, C, H, W) maps by a `side` x `side` square, anchored as `cv2.dilate` anchors it.

    With a side of 2 the f_dila of PP-OCRv2 (Du et al. 2021, section 2.1, CML), there on binary maps. A side of 1 changes nothing.
    """
    before, after = side // 2, side - 1 - side // 2
    return max_pool2d(pad(maps, (before, after, before, after), value=float("-inf")), side, 1)


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], tau: float) -> Tensor:
    """Mean over levels of :func:`channel_wise`, so that a weight means the same for any number of levels."""
    return reduce(add, [channel_wise(one, other, tau) for one, other in zip(student, teacher, strict=True)]) / len(student)


def channel_wise(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Channel-wise distillation of (B, C, H, W) features of any values (Shu et al. 2021, equations 3 and 4), mean over the batch.

    Each channel becomes a distribution over its positions, softmax(y / tau); the loss is tau^2 / C times the sum over channels of
    the Kullback-Leibler divergence of the student's distribution from the teacher's.
    """
    batch, channels = student.shape[:2]
    log_student = (student.float().flatten(2) / tau).log_softmax(2)
    log_teacher = (teacher.float().flatten(2) / tau).log_softmax(2)
    return tau**2 / (channels * batch) * kl_div(log_student, log_teacher, reduction="sum", log_target=True)
