"""Losses between a student's outputs and features and a teacher's, or another student's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor
from torch.nn.functional import kl_div, max_pool2d, mse_loss, pad

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
    :func:`steps`; the last axis is that of the classes.
    """
    log_student, log_teacher = (logits.flatten(0, -2).log_softmax(1) for logits in (student, teacher))
    return kl_div(log_student, log_teacher, reduction="sum", log_target=True) / steps(student, teacher)


def steps(student: Tensor, teacher: Tensor) -> Tensor:
    """How many steps say something of a class: all of (..., classes) logits but those that are 0 in both, as behind the end of a text."""
    return ((student != 0) | (teacher != 0)).any(-1).sum().clamp_min(1)


def decoupled_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Decoupled knowledge distillation of logits (Zhao et al. 2022, equation 7), alpha 1 and beta 2 as in PP-OCRv4, mean over all
    :func:`steps`: the divergence between "the target class" and "any other", plus `BETA` times that among the others.

    The target of a step is the class that the teacher takes for the likeliest: the ground truth of CTC names none.
    """
    ours, theirs = (logits.flatten(0, -2).log_softmax(1) for logits in (student, teacher))
    target = theirs.argmax(1, keepdim=True)
    binary = [torch.cat([of_target, log_of_rest(of_target)], 1) for of_target in (one.gather(1, target) for one in (ours, theirs))]
    others = [logits.flatten(0, -2).scatter(1, target, -HIDDEN).log_softmax(1) for logits in (student, teacher)]
    targeted, rest = (kl_div(mine, given, reduction="sum", log_target=True) for mine, given in (binary, others))
    return (targeted + BETA * rest) / steps(student, teacher)


def log_of_rest(log_share: Tensor) -> Tensor:
    """ln(1 - p) from ln(p), finite for p = 1."""
    return torch.log(-torch.expm1(log_share.clamp(max=-LEAST)))


def time_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of classes whose probabilities are averaged over time, mean over the batch.

    student, teacher: (B, T, classes) logits, T of each its own. Two CTC models put their blanks in different places: step by step they
    disagree even where they read the same. PP-OCRv4 is distilled by it.
    """
    ours, theirs = (logits.softmax(2).mean(1).clamp_min(LEAST).log() for logits in (student, teacher))
    return kl_div(ours, theirs, reduction="batchmean", log_target=True)


BETA = 2.0  # of the classes that are not the target
HIDDEN = 1e4  # below any logit
LEAST = 1e-7  # of a probability

DIVERGENCES: dict[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    "dice": soft_dice,
    "kl": class_divergence,
    "dkd": decoupled_divergence,
    "time_kl": time_divergence,
}


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


def squared_difference(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over levels of the mean squared difference of features of equal shapes."""
    return reduce(add, [mse_loss(one.float(), other.float()) for one, other in zip(student, teacher, strict=True)]) / len(student)


def channel_wise(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Channel-wise distillation of (B, C, H, W) features of any values (Shu et al. 2021, equations 3 and 4), mean over the batch.

    Each channel becomes a distribution over its positions, softmax(y / tau); the loss is tau^2 / C times the sum over channels of
    the Kullback-Leibler divergence of the student's distribution from the teacher's.
    """
    batch, channels = student.shape[:2]
    log_student = (student.float().flatten(2) / tau).log_softmax(2)
    log_teacher = (teacher.float().flatten(2) / tau).log_softmax(2)
    return tau**2 / (channels * batch) * kl_div(log_student, log_teacher, reduction="sum", log_target=True)
