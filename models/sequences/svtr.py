"""The sequence models of PP-OCR's recognisers: a few blocks of SVTR (Du et al. 2022, "SVTR: Scene Text Recognition with a Single Visual
Model", section 3.3) on a narrowed copy of the features (Li et al. 2022, "PP-OCRv3", section 3.1), and what PP-OCRv6 makes of it.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.models.contract import Width
from compress.models.layers import initialise
from compress.models.multihead import Attention
from compress.models.sequences.none import steps_of

HEADS = 8
Blocks = Annotated[int, Field(ge=1, le=16)]
Dims = Annotated[int, Field(gt=0, le=2048, multiple_of=HEADS)]


class GlobalBlock(nn.Module):
    """SVTR's global mixing block: attention, then two linear layers, each behind a layer norm and beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.mixer = Attention(channels, HEADS)
        self.norm2 = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, 2 * channels)
        self.fc2 = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.fc2(nn.functional.silu(self.fc1(self.norm2(x))))


class GlobalBlocks(nn.Module):
    """Blocks and a last layer norm, on (B, C, 1, T) maps."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(GlobalBlock(channels) for _ in range(blocks)))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(steps_of(x))).transpose(1, 2).unsqueeze(2)


def conv_swish(inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), *, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm and swish, padded so that the size stays."""
    padding = kernel[0] // 2, kernel[1] // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, groups=groups, bias=False), nn.BatchNorm2d(outputs), nn.SiLU(inplace=True)
    )


class SVTRNeck(nn.Module):
    """The features beside what a few blocks make of a narrow copy of them, and two convolutions over both."""

    def __init__(self, channels: int, dims: int, outputs: int, blocks: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        narrow = channels // 8
        self.reduce = nn.Sequential(conv_swish(channels, narrow, kernel), conv_swish(narrow, dims))
        self.mixer = GlobalBlocks(dims, blocks)
        self.expand = conv_swish(dims, channels)
        self.join = nn.Sequential(conv_swish(2 * channels, narrow, kernel), conv_swish(narrow, outputs))
        self.channels = outputs
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.expand(self.mixer(self.reduce(x)))
        return steps_of(self.join(torch.cat([x, mixed], 1)))


class LightSVTR(nn.Module):
    """PP-OCRv6's: the blocks look at seven columns each before they look at all, and their result is added to the narrowed features."""

    def __init__(self, channels: int, dims: int, blocks: int) -> None:
        super().__init__()
        self.shortcut = conv_swish(channels, dims)
        self.reduce = conv_swish(channels, dims)
        self.local = conv_swish(dims, dims, (1, 7), groups=dims)
        self.mixer = GlobalBlocks(dims, blocks)
        self.channels = dims
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        shortcut, narrow = self.shortcut(x), self.reduce(x)
        return steps_of(self.mixer(narrow + self.local(narrow)) + shortcut)


class Separable(nn.Module):
    """PP-OCRv6 tiny's: a separable convolution over five columns, and a linear layer."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(channels, channels, (1, 5), padding=(0, 2), groups=channels, bias=False), nn.BatchNorm2d(channels), nn.Hardswish()
        )
        self.pointwise = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.Hardswish())
        self.linear = nn.Linear(channels, dims)
        self.channels = dims
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(steps_of(self.pointwise(self.depthwise(x))))


def svtr(channels: int, dims: Dims = 120, outputs: Width = 64, blocks: Blocks = 2, tall: bool = True) -> SVTRNeck:
    """PP-OCRv3's; PP-OCRv4 and v5 have 120 `outputs` and are not `tall`.

    channels: of the features. dims: of the blocks, a multiple of their 8 heads. tall: 3x3 kernels instead of 1x3, of which the upper and
    the lower row see nothing but padding, as the features have one row; stage `simplify` removes them.
    """
    return SVTRNeck(channels, dims, outputs, blocks, (3, 3) if tall else (1, 3))


def light_svtr(channels: int, dims: Dims = 120, blocks: Blocks = 2) -> LightSVTR:
    """PP-OCRv6 small's. dims: of the blocks, a multiple of their 8 heads."""
    return LightSVTR(channels, dims, blocks)


def separable(channels: int, dims: Width = 80) -> Separable:
    """PP-OCRv6 tiny's. dims: of a step."""
    return Separable(channels, dims)
