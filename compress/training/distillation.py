"""Losses between a student's maps and a teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def response_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], maps: Sequence[str]) -> Tensor:
    """Sum over `maps` of the dice loss between two soft maps valued in 0..1, any equal shape."""
    return sum(soft_dice(student[name].float(), teacher[name].float()) for name in maps)


def soft_dice(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - 2 sum(pt) / (sum(p^2) + sum(t^2)) (Milletari et al. 2016): zero only where the maps are equal, also where they are soft."""
    overlap = 2 * (prediction * target).sum()
    return 1 - overlap / (prediction.square().sum() + target.square().sum() + 1e-6)
