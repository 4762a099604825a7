"""DB's network and loss (Liao et al. 2020): section 3.1 network and head, 3.2 binarization, 3.5 loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from compress.models.db import TARGETS, LossWeights
from compress.models.layers import Neck, assembled, conv_bn, initialise, start_at_prior
from compress.models.losses import NEGATIVES_PER_POSITIVE, kth_largest


class Branch(nn.Module):
    """A convolution to a quarter of the width, then two transposed convolutions up to the image's resolution; gives logits."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv = conv_bn(channels, inner, kernel)
        self.up1 = nn.Sequential(nn.ConvTranspose2d(inner, inner, 2, 2), nn.BatchNorm2d(inner), nn.ReLU(inplace=True))
        self.up2 = nn.ConvTranspose2d(inner, 1, 2, 2)
        initialise(self)

    def forward(self, x: Tensor) -> Any:
        return self.up2(self.up1(self.conv(x)))


class LocalBranch(Branch):
    """A branch that looks again at its own map beside the features that it came from, as in PP-OCRv4's server detector.

    Gives the logits of the map, as :class:`Branch`, and those of the second look.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, kernel)
        inner = channels // 4
        self.local = conv_bn(inner + 1, inner, 3)
        self.last = nn.Conv2d(inner, 1, 1)
        initialise(self)
        start_at_prior(self.last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.up1(self.conv(x))
        logits = self.up2(features)
        seen = torch.cat([logits.sigmoid(), interpolate(features, scale_factor=2.0, mode="nearest")], 1)
        return logits, self.last(self.local(seen))


class DBNet(nn.Module):
    """Backbone, neck and the two branches.

    `forward` takes (B, 3, H, W) and gives (B, 1, H, W) maps: in training `logits`, `probability` (their sigmoid), `threshold`
    and `binary`; otherwise `probability` alone, in 0..1. With a :class:`LocalBranch`, `logits` are those of its second look, `binary`
    comes from its first, and `probability` is the mean of both.
    """

    def __init__(self, backbone: nn.Module, neck: Neck, steepness: float, head_kernel: int = 3, local: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.local = local
        self.probability = (LocalBranch if local else Branch)(neck.channels, head_kernel)
        self.threshold = Branch(neck.channels, head_kernel)
        self.steepness = steepness
        start_at_prior(self.probability.up2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.neck(self.backbone(images))
        if self.local:
            before, logits = self.probability(features)
            first = before.sigmoid()
            probability = (first + logits.sigmoid()) / 2
        else:
            logits = self.probability(features)
            first = probability = logits.sigmoid()
        if not self.training:
            return {"probability": probability}
        threshold = self.threshold(features).sigmoid()
        binary = torch.sigmoid(self.steepness * (first - threshold))  # equation 2
        return {"logits": logits, "probability": probability, "threshold": threshold, "binary": binary}


def db_network(backbone: Mapping[str, Any], neck: Mapping[str, Any], steepness: float, head_kernel: int, local: bool) -> nn.Module:
    """A :class:`DBNet` with fresh weights."""
    return assembled(DBNet, backbone, neck, steepness, head_kernel, local)


def db_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """Equation 7 with dice on the approximate binary map, as the authors train it. All maps are (B, 1, H, W).

    outputs: the four training maps of :class:`DBNet`. targets: the batched maps of
    :func:`db_targets`, of any number type.
    """
    shrink, shrink_mask, threshold, threshold_mask = (targets[name].float() for name in TARGETS)
    parts = {
        "probability": balanced_cross_entropy(outputs["logits"].float(), shrink, shrink_mask),
        "threshold": masked_l1(outputs["threshold"].float(), threshold, threshold_mask),
        "binary": masked_dice(outputs["binary"].float(), shrink, shrink_mask),
    }
    total = sum(getattr(weights, name) * part for name, part in parts.items())
    return total, {name: part.detach() for name, part in parts.items()}


def balanced_cross_entropy(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Binary cross entropy over all positives and the hardest negatives, three for each positive (section 3.5, equation 8)."""
    positive = target * mask
    negative = (1 - target) * mask
    positives = positive.sum()
    wanted = torch.minimum(negative.sum(), positives * NEGATIVES_PER_POSITIVE)
    losses = binary_cross_entropy_with_logits(logits, target, reduction="none")
    hardest = sum_of_largest((losses * negative).flatten(), int(wanted))
    return ((losses * positive).sum() + hardest) / (positives + wanted + 1e-6)


def sum_of_largest(values: Tensor, count: int) -> Tensor:
    """Sum of the `count` largest of (n,) non-negative float32 `values`, as `topk` gives it, in half the time for millions of values."""
    if count == 0:
        return values.new_zeros(())
    smallest = kth_largest(values, count)
    chosen = values >= smallest
    return (values * chosen).sum() - (chosen.sum() - count) * smallest


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference inside the dilated borders of the words (equation 11)."""
    return ((prediction - target).abs() * mask).sum() / (mask.sum() + 1e-6)


def masked_dice(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - dice coefficient (Milletari et al. 2016) over the unmasked pixels of the whole batch."""
    prediction, target = prediction * mask, target * mask
    return 1 - 2 * (prediction * target).sum() / (prediction.sum() + target.sum() + 1e-6)
