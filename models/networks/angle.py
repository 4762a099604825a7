"""The network and the loss of PP-OCR's angle classifier (Du et al. 2020, section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d

from compress.models.backbones.mobilenet_v3_ppocr import mobilenet_v3_small_lines


class AngleNet(nn.Module):
    """Backbone, pooling and one linear layer.

    `forward` takes (B, 3, H, W) lines, 48 x 192 in PP-OCR, and gives `probability`, (B, 2), of 0 and of 180 degrees; in training the
    `logits` too.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        self.backbone = mobilenet_v3_small_lines(width)
        self.classifier = nn.Linear(self.backbone.channels[-1], 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        (features,) = self.backbone(images)
        logits = self.classifier(max_pool2d(features, 2).mean((2, 3)))
        probability = logits.softmax(1)
        return {"logits": logits, "probability": probability} if self.training else {"probability": probability}


def angle_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross entropy, mean over the batch. outputs: `logits`, (B, 2). targets: `label`, (B,), places in `LABELS`."""
    loss = cross_entropy(outputs["logits"].float(), targets["label"])
    return loss, {"cross_entropy": loss.detach()}
