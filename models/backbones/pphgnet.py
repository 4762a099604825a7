"""PP-HGNet, the backbone of PP-OCRv4's server detector and recogniser: 3x3 convolutions, whose outputs are joined at the end of a block.

The joining is that of VoVNet (Lee et al. 2019, "An Energy and GPU-Computation Efficient Backbone Network", figure 1b), the gate that of
its second version (Lee and Park 2020, "CenterMask", section 2.3).
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from compress.models.backbones.mobilenet_v3 import round_to_8
from compress.models.layers import conv_bn, initialise

STEM = (64, 64, 128)
# Width inside the blocks, width of their outputs, blocks.
STAGES = ((128, 256, 1), (160, 512, 1), (192, 768, 2), (224, 1024, 1))
CONVOLUTIONS = 6  # in a block
Stride = int | tuple[int, int]  # both ways, or down and across
STRIDES: tuple[Stride, ...] = (1, 2, 2, 2)  # of the stages, after a stem and a pooling that halve both sides
LINE_STRIDES: tuple[Stride, ...] = ((2, 1), (1, 2), (2, 1), (2, 1))  # after the stem alone: 48 rows become 3, four columns one
Width = Annotated[float, Field(gt=0, le=2)]


class EffectiveSqueeze(nn.Module):
    """Squeeze-and-excite by one convolution, without narrowing the channels in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean((2, 3), keepdim=True)).sigmoid()


class HGBlock(nn.Module):
    """3x3 convolutions one after the other, a 1x1 convolution of the input and all of their outputs, and a gate.

    residual: whether the input, of the same width, is added.
    """

    def __init__(self, inputs: int, inner: int, outputs: int, residual: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv_bn(inner if i else inputs, inner, 3) for i in range(CONVOLUTIONS))
        self.join = conv_bn(inputs + CONVOLUTIONS * inner, outputs)
        self.squeeze = EffectiveSqueeze(outputs)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        y = self.squeeze(self.join(torch.cat(outputs, 1)))
        return x + y if self.residual else y


class PPHGNet(nn.Module):
    """Stem, pooling, and four stages of blocks, each with a stride after a depthwise convolution that has it."""

    def __init__(self, width: float, pool: nn.Module, strides: tuple[Stride, ...]) -> None:
        super().__init__()
        first, second, inputs = (round_to_8(channels * width) for channels in STEM)
        self.stem = nn.Sequential(conv_bn(3, first, 3, stride=2), conv_bn(first, second, 3), conv_bn(second, inputs, 3))
        self.pool = pool
        self.channels = tuple(round_to_8(outputs * width) for _, outputs, _ in STAGES)
        self.downs, self.stages = nn.ModuleList(), nn.ModuleList()
        for (inner, _, blocks), outputs, stride in zip(STAGES, self.channels, strides, strict=True):
            down = nn.Identity() if stride == 1 else conv_bn(inputs, inputs, 3, stride=stride, groups=inputs, activation=None)
            self.downs.append(down)
            inner = round_to_8(inner * width)
            self.stages.append(nn.Sequential(*(HGBlock(outputs if i else inputs, inner, outputs, i > 0) for i in range(blocks))))
            inputs = outputs
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, features = self.pool(self.stem(x)), []
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
            features.append(x)
        return features


class PPHGNetLines(nn.Module):
    """The last stage's output, and the mean of 3 x 2 columns: (B, 3, 48, W) lines to (B, channels, 1, W / 8) features."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.trunk = PPHGNet(width, nn.Identity(), LINE_STRIDES)
        self.channels = self.trunk.channels[-1]

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(self.trunk(x)[-1], (3, 2))


def pphgnet_small(width: Width = 1.0) -> PPHGNet:
    """256, 512, 768 and 1024 channels at full width."""
    return PPHGNet(width, nn.MaxPool2d(3, 2, 1), STRIDES)


def pphgnet_small_lines(width: Width = 1.0) -> PPHGNetLines:
    """1024 channels at full width, as in PP-OCRv4's server recogniser."""
    return PPHGNetLines(width)
