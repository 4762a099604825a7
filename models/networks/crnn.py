"""CRNN's network (Shi et al. 2017, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from compress.models.registry import LINE_BACKBONES, SEQUENCES, TRANSFORMS, configured


class CRNN(nn.Module):
    """What straightens a line, backbone, sequence model and one linear layer.

    `forward` takes (B, 3, H, W) lines and gives `probability`, (B, T, classes), of the classes of every step; in training the `logits` too.
    """

    def __init__(self, transform: nn.Module, backbone: Any, sequence: Any, classes: int) -> None:
        super().__init__()
        self.transform = transform
        self.backbone = backbone
        self.sequence = sequence
        self.head = nn.Linear(sequence.channels, classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.head(self.sequence(self.backbone(self.transform(images))))
        probability = logits.softmax(2)
        return {"logits": logits, "probability": probability} if self.training else {"probability": probability}


def crnn_network(*, transform: Mapping[str, Any], backbone: Mapping[str, Any], sequence: Mapping[str, Any], classes: int) -> nn.Module:
    """A :class:`CRNN` with fresh weights."""
    straightened = configured(TRANSFORMS, transform, "model.transform")()
    features = configured(LINE_BACKBONES, backbone, "model.backbone")()
    return CRNN(straightened, features, configured(SEQUENCES, sequence, "model.sequence")(features.channels), classes)
