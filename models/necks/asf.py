"""Adaptive scale fusion, the neck of DB++ (Liao et al. 2022, "Real-time scene text detection with differentiable binarization and
adaptive scale fusion"): a feature pyramid whose levels are weighted, pixel by pixel, before they are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from compress.models.layers import Uncoupled, conv_bn, initialise
from compress.models.necks.fpn import Channels, conv, enlarged, top_down

Attention = Literal["scale_spatial", "scale_channel_spatial"]


class ChannelMean(nn.Module):
    """(B, C, H, W) -> (B, 1, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)


class ScaleAttention(nn.Module):
    """One weight in 0..1 for each of `scales` at each pixel: spatial attention is added to the features that it is made of.

    squeeze: channel attention before, added too; the authors' code has both forms, "scale_channel_spatial" and "scale_spatial".
    """

    def __init__(self, channels: int, scales: int, squeeze: bool) -> None:
        super().__init__()
        pooled = (nn.AdaptiveAvgPool2d(1), conv(channels, max(1, channels // 4), 1), nn.ReLU(), conv(max(1, channels // 4), channels, 1))
        self.channel = nn.Sequential(*pooled, nn.Sigmoid()) if squeeze else None
        self.mean = Uncoupled(ChannelMean())
        self.spatial = Uncoupled(nn.Sequential(conv(1, 1, 3), nn.ReLU(), conv(1, 1, 1), nn.Sigmoid()))
        self.scales = Uncoupled(nn.Sequential(conv(channels, scales, 1), nn.Sigmoid()))

    def forward(self, x: Tensor) -> Tensor:
        if self.channel is not None:
            x = x + self.channel(x)
        return self.scales(x + self.spatial(self.mean(x)))


class AdaptiveScaleFusion(nn.Module):
    """Levels of equal size, joined after each was weighted: a convolution of all of them says how much of each."""

    def __init__(self, widths: Sequence[int], inner: int, squeeze: bool) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(sum(widths), inner, 3, padding=1)
        self.attention = ScaleAttention(inner, len(widths), squeeze)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        weights = self.attention(self.fuse(torch.cat(list(levels), 1)))
        return torch.cat([weights[:, scale : scale + 1] * level for scale, level in enumerate(levels)], 1)


class ASFPN(nn.Module):
    """The pyramid of :func:`compress.models.necks.fpn.fpn`, every layer with batch norm and ReLU, with adaptive scale fusion at its end.

    The authors' code has convolutions alone here, as it has for DB.
    """

    def __init__(self, inputs: Sequence[int], channels: int, squeeze: bool) -> None:
        super().__init__()
        self.channels = channels
        widths = [channels // 4] * len(inputs)
        self.laterals = nn.ModuleList(conv_bn(width, channels) for width in inputs)
        self.smooths = nn.ModuleList(conv_bn(channels, width, 3) for width in widths)
        self.fusion = AdaptiveScaleFusion(widths, channels // 4, squeeze)
        initialise(self)

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = top_down([lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)])
        return self.fusion(enlarged([smooth(level) for smooth, level in zip(self.smooths, levels, strict=True)]))


def fpn_asf(inputs: Sequence[int], channels: Channels = 256, attention: Attention = "scale_channel_spatial") -> ASFPN:
    """channels: inner width, of which each of the four levels that are joined has a quarter; 256 in the paper.

    attention: whether the scales are weighed after spatial attention alone, or after channel attention too.
    """
    return ASFPN(inputs, channels, attention == "scale_channel_spatial")
