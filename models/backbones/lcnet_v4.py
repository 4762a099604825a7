"""PP-LCNetV4, the backbone of PP-OCRv6's detectors and recognisers, in its form for inference, read off their exported files: blocks as in
RepViT (Wang et al. 2024, "RepViT: Revisiting Mobile CNN From ViT Perspective", section 3.2), parallel branches merged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu, max_pool2d, pad

from compress.models.backbones.mobilenet_v3 import Width, round_to_8
from compress.models.layers import SqueezeExcite, branching_conv_bn, conv_bn, initialise


@dataclass(frozen=True)
class Size:
    """channels: of each stage. squeezed: for each stage, whether its blocks have squeeze-and-excite. branched: of the stem."""

    channels: tuple[int, ...]
    squeezed: tuple[tuple[bool, ...], ...]
    branched: bool


S, P = True, False
LINES_TINY = Size((48, 96, 160), ((S, P), (S, P), (S, P, P)), branched=False)
TINY = Size((32, 48, 64, 160), ((S, P), (S, P), (S, P, S, P), (S, P)), branched=True)
SMALL = Size((48, 96, 192, 384), TINY.squeezed, branched=True)
LINES_SMALL = Size((96, 192, 384), ((S, P, P), (S, P, S, P, S, P), (S, P)), branched=True)


class Stem(nn.Sequential):
    """Two convolutions with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            conv_bn(3, channels // 2, 3, stride=2, activation=None),
            nn.GELU(),
            conv_bn(channels // 2, channels, 3, stride=2, activation=None),
        )


class BranchedStem(nn.Module):
    """That of PP-HGNetV2: between two convolutions with stride 2 the highest values of 2 x 2 pixels, beside two 2x2 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.first = conv_bn(3, half, 3, stride=2)
        self.narrow = unpadded_2x2(half, quarter)
        self.widen = unpadded_2x2(quarter, half)
        self.join = conv_bn(2 * half, half, 3, stride=2)
        self.last = conv_bn(half, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        convolved = self.widen(one_more(self.narrow(one_more(x))))
        return self.last(self.join(torch.cat([max_pool2d(one_more(x), 2, 1), convolved], 1)))


def unpadded_2x2(inputs: int, outputs: int) -> nn.Sequential:
    """A 2x2 convolution with batch norm and ReLU, which takes one row and one column away."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def one_more(x: Tensor) -> Tensor:
    """The map with a row of zeros below it and a column of them to its right."""
    return pad(x, (0, 1, 0, 1))


class LCNetV4Block(nn.Module):
    """Over space: a depthwise convolution, and squeeze-and-excite; over channels: two 1x1 convolutions, beside a shortcut where nothing
    changes its size.
    """

    def __init__(self, inputs: int, outputs: int, stride: int | tuple[int, int], squeeze: bool) -> None:
        super().__init__()
        depthwise = branching_conv_bn if stride == 1 else partial(conv_bn, activation=None)
        self.depthwise = depthwise(inputs, inputs, 3, stride=stride, groups=inputs)
        self.squeeze = SqueezeExcite(inputs, inputs // 4) if squeeze else nn.Identity()
        self.expand = conv_bn(inputs, 2 * inputs, activation=None)
        self.project = conv_bn(2 * inputs, outputs, activation=None)
        self.residual = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(self.depthwise(x))
        y = self.project(gelu(self.expand(x)))
        return x + y if self.residual else y


class LCNetV4(nn.Module):
    """Stem, stages, and a block with `stride` between two stages; gives the output of every stage."""

    def __init__(self, size: Size, stride: int | tuple[int, int]) -> None:
        super().__init__()
        self.channels = size.channels
        self.stem = (BranchedStem if size.branched else Stem)(size.channels[0])
        self.stages = nn.ModuleList()
        before = size.channels[0]
        for channels, squeezed in zip(size.channels, size.squeezed, strict=True):
            halving = [LCNetV4Block(before, channels, stride, squeeze=False)] * (len(self.stages) > 0)
            self.stages.append(nn.Sequential(*halving, *(LCNetV4Block(channels, channels, 1, squeeze) for squeeze in squeezed)))
            before = channels
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class LCNetV4Lines(nn.Module):
    """The last stage's output, and the mean of 3 x 2 columns: (B, 3, 48, W) lines to (B, channels, 1, W / 8) features."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.trunk = LCNetV4(size, (2, 1))
        self.channels = size.channels[-1]

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(self.trunk(x)[-1], (3, 2))


def lcnet_v4_lines_tiny() -> LCNetV4Lines:
    """160 channels, that of PP-OCRv6 tiny."""
    return LCNetV4Lines(LINES_TINY)


def lcnet_v4_lines_small() -> LCNetV4Lines:
    """384 channels, that of PP-OCRv6 small."""
    return LCNetV4Lines(LINES_SMALL)


def scaled(size: Size, width: float) -> Size:
    """The size with so many times the channels."""
    return replace(size, channels=tuple(round_to_8(channels * width) for channels in size.channels))


def lcnet_v4_tiny(width: Width = 1.0) -> LCNetV4:
    """At full width 32, 48, 64 and 160 channels, that of PP-OCRv6's tiny detector."""
    return LCNetV4(scaled(TINY, width), 2)


def lcnet_v4_small(width: Width = 1.0) -> LCNetV4:
    """At full width 48, 96, 192 and 384 channels, that of PP-OCRv6's small detector."""
    return LCNetV4(scaled(SMALL, width), 2)
