"""Pictures that quantizers see to choose their ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from compress.data.prepare import inference_input

if TYPE_CHECKING:
    from compress.checkpoint import Model
    from compress.lab import Lab


def calibration_batches(model: Model, lab: Lab, count: int) -> Iterator[Tensor]:
    """Up to `count` training pictures, spread evenly over the split, one at a time, resized as at inference: (1, 3, H, W) float32."""
    split = lab.split("train")
    for index in np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int):
        yield inference_input(split[int(index)].image, lab.recipe.evaluate.short_side, model.algorithm)
