"""Losses that several detectors share."""

from __future__ import annotations

import torch
from torch import Tensor

NEGATIVES_PER_POSITIVE = 3


def kth_largest(values: Tensor, count: int) -> Tensor:
    """The `count`-th largest of (n,) non-negative float32 `values`, 1 <= count <= n, in half the time of `topk` for millions of them.

    The bits of such floats are in the order of the floats: a histogram of their upper halves leaves few values to sort.
    """
    with torch.no_grad():
        upper = (values.view(torch.int32) & 0x7FFFFFFF) >> 16  # without the sign, which a diverged loss's NaN may have
        at_least = torch.bincount(upper, minlength=1 << 15).flip(0).cumsum(0).flip(0)
        edge = int((at_least >= count).sum()) - 1
        near = values[upper == edge]
        return near.topk(count - int(at_least[edge]) + len(near), sorted=True).values[-1]


@torch.no_grad()
def hard_examples(probability: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Online hard example mining (Shrivastava et al. 2016) in each image: all text and the three times as many other pixels that
    look the most like text; every unmasked pixel where an image has no text.

    probability: (B, 1, H, W) in 0..1. target, mask: the same shape, 0 or 1. Gives a map of 0 and 1 in their type.
    """
    positive, negative = target * mask, (1 - target) * mask
    chosen = []
    for scores, text, other, usable in zip(probability.float(), positive, negative, mask, strict=True):
        wanted = min(NEGATIVES_PER_POSITIVE * int(text.sum()), int(other.sum()))
        if wanted:
            hard = other * (scores >= kth_largest((scores * other).flatten().contiguous(), wanted))
            chosen.append(text + hard)
        else:
            chosen.append(text if text.any() else usable)
    return torch.stack(chosen)


def dice(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - 2 sum(pt) / (sum(p^2) + sum(t^2)) (Milletari et al. 2016) over the unmasked pixels of each map: (B, C, H, W) to (B, C)."""
    prediction, target = prediction * mask, target * mask
    overlap = (prediction * target).sum((2, 3))
    return 1 - 2 * overlap / (prediction.square().sum((2, 3)) + target.square().sum((2, 3)) + 1e-6)
