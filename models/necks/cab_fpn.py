"""A feature pyramid that is merged level by level, with context attention blocks behind it, the neck of SAST (Wang et al. 2019, "A
single-shot arbitrarily-shaped text detector based on context attended multi-task learning").

The published network has a second pyramid, from the image and the stem up to stride 4, and one level more, at stride 64; here are the
four levels that every backbone gives, so that any backbone and any detector can have this neck.
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

ALONG_ROWS, ALONG_COLUMNS = (0, 2, 3, 1), (0, 3, 2, 1)  # (B, C, H, W) as (B, H, W, C), and as (B, W, H, C)


class ContextAttention(nn.Module):
    """Every pixel sees its row and its column (the Context Attention Block): (B, C, H, W) to the same shape.

    f_theta, f_phi and f_g are shared by the two directions. The similarities, H x W x W and W x H x H numbers, take O(HW(H + W)) memory.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (conv_bn(channels, channels) for _ in range(3))
        self.horizontal, self.horizontal_shortcut = (conv_bn(channels, channels, activation=None) for _ in range(2))
        self.vertical, self.vertical_shortcut = (conv_bn(channels, channels, activation=None) for _ in range(2))
        self.merge = conv_bn(2 * channels, channels)
        # By the original width: pruning takes terms out of the sums and leaves the others what they were.
        self.scale = channels**-0.5

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = self.theta(x) * self.scale, self.phi(x), self.g(x)
        rows = torch.relu(self.horizontal(attended(theta, phi, g, ALONG_ROWS)) + self.horizontal_shortcut(x))
        columns = torch.relu(self.vertical(attended(theta, phi, g, ALONG_COLUMNS)) + self.vertical_shortcut(x))
        return self.merge(torch.cat([rows, columns], 1))


def attended(theta: Tensor, phi: Tensor, g: Tensor, order: tuple[int, int, int, int]) -> Tensor:
    """softmax(theta phi^T) g along the last but one axis of the (B, C, H, W) maps laid out in `order`; (B, C, H, W) again.

    Products of four-dimensional tensors need no reshaping, so that nothing in the graph depends on the size or on the channels.
    """
    theta, phi, g = (maps.permute(order) for maps in (theta, phi, g))
    weights = torch.matmul(theta, phi.transpose(2, 3)).softmax(3)
    return torch.matmul(weights, g).permute(0, 3, 1, 2) if order == ALONG_ROWS else torch.matmul(weights, g).permute(0, 3, 2, 1)


class ContextFPN(nn.Module):
    """1x1 laterals; from the coarsest level on, each is upsampled, added to the next finer one and smoothed; then the attention blocks.

    All layers have the same width.
    """

    def __init__(self, inputs: Sequence[int], channels: int, blocks: int) -> None:
        super().__init__()
        self.channels = channels
        self.laterals = nn.ModuleList(conv_bn(width, channels) for width in inputs)
        self.smooths = nn.ModuleList(conv_bn(channels, channels, 3) for _ in inputs)
        self.blocks = nn.Sequential(*(ContextAttention(channels) for _ in range(blocks)))
        initialise(self)

    def forward(self, features: list[Tensor]) -> Tensor:
        *finer, coarsest = (lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True))
        merged = self.smooths[-1](coarsest)
        for level, smooth in zip(reversed(finer), reversed(self.smooths[:-1]), strict=True):
            merged = smooth(level + interpolate(merged, scale_factor=2.0, mode="nearest"))
        return self.blocks(merged)


def cab_fpn(inputs: Sequence[int], channels: Width = 128, blocks: Annotated[int, Field(ge=0, le=8)] = 1) -> ContextFPN:
    """channels: width of every layer, and of the output. blocks: context attention blocks in series. 128 and 1 in the published network."""
    return ContextFPN(inputs, channels, blocks)
