"""Images that quantizers see to choose their ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compress.data.split import evenly

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


def calibration_batches(model: Model, lab: Lab, count: int) -> Iterator[Tensor]:
    """Up to `count` training images, spread evenly over the split, one at a time, as at inference: (1, 3, H, W) float32."""
    split = lab.split("train")
    for index in evenly(len(split), count):
        yield torch.from_numpy(model.shown(split[index].image))
