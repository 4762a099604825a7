"""The angle classifier of PP-OCR (Du et al. 2020, section 2.2): whether a cropped line of text stands on its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, NoReturn

import numpy as np
from compress.models.backbones.mobilenet_v3_ppocr import mobilenet_v3_small_lines
from compress.models.contract import Algorithm, Classification, Deviation, Input, Mean
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

LABELS = ("0", "180")  # degrees


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


@dataclass(frozen=True)
class Thresholds:
    """A class is read off the probabilities: there is nothing to choose."""


def angle_decode(outputs: Mapping[str, np.ndarray], *_: Any) -> list[Classification]:
    """The likelier angle of each line. outputs: `probability`, (B, 2), in 0..1. Raises ValueError for an array of another shape."""
    rows = np.asarray(outputs["probability"])
    if rows.ndim != 2 or rows.shape[1] != len(LABELS):
        raise ValueError(f"angles are read off probabilities of shape (B, {len(LABELS)}), not {rows.shape}.")
    return [Classification(LABELS[row.argmax()], float(row.max())) for row in rows]


def unsupported(*_: Any) -> NoReturn:
    """Samples have words on them, and neither lines nor angles."""
    raise ValueError("the angle classifier can be converted, exported, evaluated and asked for an angle; training it is not supported.")


def angle(width: Annotated[float, Field(gt=0, le=2)] = 0.35, mean: Mean = (0.5, 0.5, 0.5), std: Deviation = (0.5, 0.5, 0.5)) -> Algorithm:
    """The classifier as an :class:`Algorithm` of task "classification", which can be used, but not trained.

    width: of MobileNetV3-Small. mean, std: as in :func:`compress.models.db.db`.
    """
    return Algorithm(
        task="classification",
        network=partial(AngleNet, width),
        targets=unsupported,
        loss=unsupported,
        decode=angle_decode,
        settings=Thresholds,
        tunable=MappingProxyType({}),
        labels=LABELS,
        input=Input(multiple=(16, 16), example=(48, 192), mean=tuple(mean), std=tuple(std)),
    )
