"""Feature pyramid with concatenated levels, the neck of DB (Liao et al. 2020, figure 3; Lin et al. 2017 for the pyramid)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.layers import conv_bn, initialise


class FPN(nn.Module):
    """1x1 laterals, nearest upsampling and addition, a 3x3 smoothing of each level, all joined at stride 4."""

    def __init__(self, inputs: Sequence[int], channels: int, joined: int) -> None:
        super().__init__()
        self.channels = joined * len(inputs)
        self.laterals = nn.ModuleList(conv_bn(width, channels) for width in inputs)
        self.smooths = nn.ModuleList(conv_bn(channels, joined, 3) for _ in inputs)
        initialise(self)

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for finer in reversed(range(len(levels) - 1)):
            levels[finer] = levels[finer] + interpolate(levels[finer + 1], scale_factor=2.0, mode="nearest")
        smoothed = [smooth(level) for smooth, level in zip(self.smooths, levels, strict=True)]
        enlarged = [interpolate(level, scale_factor=2.0**i, mode="nearest") if i else level for i, level in enumerate(smoothed)]
        return torch.cat(enlarged[::-1], 1)


def fpn(
    inputs: Sequence[int],
    channels: Annotated[int, Field(gt=0, multiple_of=4)] = 96,
    joined: Annotated[int, Field(gt=0)] | None = None,
) -> FPN:
    """channels: inner width, a multiple of 4. 96 in the published table, 256 in the papers of DB and PSENet.

    joined: width of each of the four levels as they are joined; a quarter of `channels` unless said, as in DB. 256 in PSENet.
    """
    return FPN(inputs, channels, joined or channels // 4)
