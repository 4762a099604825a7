"""Feature pyramid enhancement and feature fusion, the neck of PAN (Wang et al. 2019, "Efficient and accurate arbitrary-shaped text
detection with pixel aggregation network", sections 3.2 and 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate

from compress.models.contract import Width
from compress.models.layers import conv_bn, initialise


def separable(channels: int, stride: int) -> nn.Sequential:
    """Depthwise 3x3 and pointwise convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), *conv_bn(channels, channels))


def added(coarse: Tensor, fine: Tensor) -> Tensor:
    """A level, upsampled, and the next finer one."""
    return interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False) + fine


class FPEM(nn.Module):
    """A U: levels enhanced from the coarsest to the finest, each by the one above, then back, each by the one below."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.ups = nn.ModuleList(separable(channels, 1) for _ in range(levels - 1))
        self.downs = nn.ModuleList(separable(channels, 2) for _ in range(levels - 1))

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        levels = list(levels)
        last = len(levels) - 1
        for i in reversed(range(last)):
            levels[i] = self.ups[i](added(levels[i + 1], levels[i]))
        for i in range(last):
            levels[i + 1] = self.downs[i](added(levels[i + 1], levels[i]))
        return levels


class Sum(nn.Module):
    """The same level of all FPEMs, added."""

    def forward(self, *levels: Tensor) -> Tensor:
        return sum(levels[1:], levels[0])


class FPEMFFM(nn.Module):
    """1x1 laterals, a cascade of FPEMs, and their fusion: levels of equal scale are added, and all joined at stride 4."""

    def __init__(self, inputs: Sequence[int], channels: int, repeats: int) -> None:
        super().__init__()
        self.channels = channels * len(inputs)
        self.laterals = nn.ModuleList(conv_bn(width, channels) for width in inputs)
        self.fpems = nn.ModuleList(FPEM(channels, len(inputs)) for _ in range(repeats))
        self.smooths = nn.ModuleList(Sum() for _ in inputs)
        initialise(self)

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        pyramids = [levels := fpem(levels) for fpem in self.fpems]
        fused = [smooth(*same) for smooth, same in zip(self.smooths, zip(*pyramids, strict=True), strict=True)]
        enlarged = [
            interpolate(level, scale_factor=2.0**i, mode="bilinear", align_corners=False) if i else level for i, level in enumerate(fused)
        ]
        return torch.cat(enlarged, 1)


def fpem_ffm(inputs: Sequence[int], channels: Width = 128, repeats: Annotated[int, Field(ge=1, le=16)] = 2) -> FPEMFFM:
    """channels: inner width, a quarter of the output's. repeats: FPEMs in the cascade. 128 and 2 in the paper."""
    return FPEMFFM(inputs, channels, repeats)
