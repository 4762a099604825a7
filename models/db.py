"""DB: real-time scene text detection with differentiable binarization (Liao et al., AAAI 2020), in the order of the paper.

Section 3.1 network and head, 3.2 binarization, 3.5 loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from models.layers import conv_bn, initialise


class Branch(nn.Module):
    """3x3 convolution to a quarter of the width, then two transposed convolutions up to the picture's resolution; gives logits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv = conv_bn(channels, inner, 3)
        self.up1 = nn.Sequential(nn.ConvTranspose2d(inner, inner, 2, 2), nn.BatchNorm2d(inner), nn.ReLU(inplace=True))
        self.up2 = nn.ConvTranspose2d(inner, 1, 2, 2)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.up2(self.up1(self.conv(x)))


class DBNet(nn.Module):
    """Backbone, neck and the two branches.

    `forward` takes (B, 3, H, W) and gives (B, 1, H, W) maps: in training `logits`, `probability` (their sigmoid), `threshold`
    and `binary`; otherwise `probability` alone, in 0..1.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, steepness: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.probability = Branch(neck.channels)
        self.threshold = Branch(neck.channels)
        self.steepness = steepness

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.neck(self.backbone(images))
        logits = self.probability(features)
        probability = logits.sigmoid()
        if not self.training:
            return {"probability": probability}
        threshold = self.threshold(features).sigmoid()
        binary = torch.sigmoid(self.steepness * (probability - threshold))  # equation 2
        return {"logits": logits, "probability": probability, "threshold": threshold, "binary": binary}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three parts of the loss. The paper (equation 7) has alpha = 1 for `binary` and beta = 10 for `threshold`."""

    probability: float = 1.0
    threshold: float = 10.0
    binary: float = 1.0


NEGATIVES_PER_POSITIVE = 3.0


def db_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """Equation 7 with dice on the approximate binary map, as the authors train it. All maps are (B, 1, H, W).

    outputs: the four training maps of :class:`DBNet`. targets: `shrink`, `shrink_mask`, `threshold`, `threshold_mask`.
    """
    parts = {
        "probability": balanced_cross_entropy(outputs["logits"].float(), targets["shrink"], targets["shrink_mask"]),
        "threshold": masked_l1(outputs["threshold"].float(), targets["threshold"], targets["threshold_mask"]),
        "binary": masked_dice(outputs["binary"].float(), targets["shrink"], targets["shrink_mask"]),
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
    hardest = (losses * negative).flatten().topk(int(wanted), sorted=False).values
    return ((losses * positive).sum() + hardest.sum()) / (positives + wanted + 1e-6)


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference inside the dilated borders of the words (equation 11)."""
    return ((prediction - target).abs() * mask).sum() / (mask.sum() + 1e-6)


def masked_dice(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - dice coefficient (Milletari et al. 2016) over the unmasked pixels of the whole batch."""
    prediction, target = prediction * mask, target * mask
    return 1 - 2 * (prediction * target).sum() / (prediction.sum() + target.sum() + 1e-6)
