"""MobileNetV3 (Howard et al., "Searching for MobileNetV3", 2019, tables 1 and 2) of any width; the small one in two variants.

`mobilenet_v3_small` is the one of the published compression table: squeeze-and-excite, with batch norm, sits on the block's
output, and the first block keeps the resolution, so that the taps have 24, 40, 48 and 96 channels.
`mobilenet_v3_small_torchvision` and `mobilenet_v3_large` are the paper's, with torchvision's parameter names, so that its ImageNet
weights load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from compress.models.layers import SqueezeExcite, conv_bn, initialise

Width = Annotated[float, Field(gt=0, le=4)]


@dataclass(frozen=True)
class Row:
    """One row of the paper's tables: a bottleneck with its kernel, expansion, output, squeeze-excite, nonlinearity and stride."""

    kernel: int
    expansion: int
    outputs: int
    squeeze: bool
    activation: type[nn.Module]
    stride: int


TABLE_1 = (
    Row(3, 16, 16, False, nn.ReLU, 1),
    Row(3, 64, 24, False, nn.ReLU, 2),
    Row(3, 72, 24, False, nn.ReLU, 1),
    Row(5, 72, 40, True, nn.ReLU, 2),
    Row(5, 120, 40, True, nn.ReLU, 1),
    Row(5, 120, 40, True, nn.ReLU, 1),
    Row(3, 240, 80, False, nn.Hardswish, 2),
    Row(3, 200, 80, False, nn.Hardswish, 1),
    Row(3, 184, 80, False, nn.Hardswish, 1),
    Row(3, 184, 80, False, nn.Hardswish, 1),
    Row(3, 480, 112, True, nn.Hardswish, 1),
    Row(3, 672, 112, True, nn.Hardswish, 1),
    Row(5, 672, 160, True, nn.Hardswish, 2),
    Row(5, 960, 160, True, nn.Hardswish, 1),
    Row(5, 960, 160, True, nn.Hardswish, 1),
)
TABLE_2 = (
    Row(3, 16, 16, True, nn.ReLU, 2),
    Row(3, 72, 24, False, nn.ReLU, 2),
    Row(3, 88, 24, False, nn.ReLU, 1),
    Row(5, 96, 40, True, nn.Hardswish, 2),
    Row(5, 240, 40, True, nn.Hardswish, 1),
    Row(5, 240, 40, True, nn.Hardswish, 1),
    Row(5, 120, 48, True, nn.Hardswish, 1),
    Row(5, 144, 48, True, nn.Hardswish, 1),
    Row(5, 288, 96, True, nn.Hardswish, 2),
    Row(5, 576, 96, True, nn.Hardswish, 1),
    Row(5, 576, 96, True, nn.Hardswish, 1),
)


class OutputSqueeze(nn.Module):
    """Squeeze-and-excite on a block's output, with batch norm, reduction 4, as in the published variant."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            conv_bn(channels, channels // 4), conv_bn(channels // 4, channels, activation=None), nn.Hardsigmoid(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3), keepdim=True))


class OutputSqueezeBlock(nn.Module):
    """Expansion, depthwise convolution, projection, then squeeze-and-excite; a residual where the original widths agree."""

    def __init__(self, inputs: int, row: Row, stride: int) -> None:
        super().__init__()
        self.expand = conv_bn(inputs, row.expansion, activation=row.activation)
        self.depthwise = conv_bn(row.expansion, row.expansion, row.kernel, stride=stride, groups=row.expansion, activation=row.activation)
        self.project = conv_bn(row.expansion, row.outputs, activation=None)
        self.squeeze = OutputSqueeze(row.outputs) if row.squeeze else nn.Identity()
        self.residual = stride == 1 and inputs == row.outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.squeeze(self.project(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class MobileNetV3Small(nn.Module):
    """The published variant: taps after blocks 2, 5, 7 and 10, strides 4, 8, 16 and 32."""

    strides = (1, 2, 1, 2, 1, 1, 2, 1, 2, 1, 1)
    taps = (2, 5, 7, 10)

    def __init__(self, width: float) -> None:
        super().__init__()
        rows = scaled(TABLE_2, width)
        inputs = (round_to_8(16 * width), *(row.outputs for row in rows))
        self.channels = tuple(rows[tap].outputs for tap in self.taps)
        self.stem = conv_bn(3, inputs[0], 3, stride=2, activation=nn.Hardswish)
        self.blocks = nn.ModuleList(
            OutputSqueezeBlock(inputs[i], row, stride) for i, (row, stride) in enumerate(zip(rows, self.strides, strict=True))
        )
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        return tapped(self.stem(x), self.blocks, self.taps)


class InnerSqueezeBlock(nn.Module):
    """The paper's bottleneck; parameter names as in torchvision's `InvertedResidual`."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        depthwise = conv_bn(row.expansion, row.expansion, row.kernel, stride=row.stride, groups=row.expansion, activation=row.activation)
        layers: list[nn.Module] = [] if row.expansion == inputs else [conv_bn(inputs, row.expansion, activation=row.activation)]
        layers += [depthwise, *([SqueezeExcite(row.expansion, round_to_8(row.expansion / 4))] if row.squeeze else [])]
        self.block = nn.Sequential(*layers, conv_bn(row.expansion, row.outputs, activation=None))
        self.residual = row.stride == 1 and inputs == row.outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.residual else self.block(x)


class MobileNetV3(nn.Module):
    """The paper's network without its last convolution. Names in `features` are torchvision's: 0 is the stem, i the i-th block.

    taps: those whose outputs are the feature maps at strides 4, 8, 16 and 32.
    """

    def __init__(self, table: Sequence[Row], taps: tuple[int, ...], width: float) -> None:
        super().__init__()
        rows = scaled(table, width)
        inputs = (round_to_8(16 * width), *(row.outputs for row in rows))
        self.taps = taps
        self.channels = tuple(inputs[tap] for tap in taps)
        blocks = [InnerSqueezeBlock(inputs[i], row) for i, row in enumerate(rows)]
        self.features = nn.Sequential(conv_bn(3, inputs[0], 3, stride=2, activation=nn.Hardswish), *blocks)
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        return tapped(x, self.features, self.taps)


def tapped(x: Tensor, blocks: Iterable[nn.Module], taps: tuple[int, ...]) -> list[Tensor]:
    """Run `blocks` in order and keep the outputs of those whose index is in `taps`."""
    kept = []
    for index, block in enumerate(blocks):
        x = block(x)
        if index in taps:
            kept.append(x)
    return kept


def round_to_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8, never more than 10 % below (torchvision's `_make_divisible`)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def scaled(table: Sequence[Row], width: float) -> list[Row]:
    """The rows with all channels times `width`, each a multiple of 8."""
    return [replace(row, expansion=round_to_8(row.expansion * width), outputs=round_to_8(row.outputs * width)) for row in table]


def mobilenet_v3_small(width: Width = 1.0) -> MobileNetV3Small:
    """The variant of the published table, squeeze-and-excite on the block's output."""
    return MobileNetV3Small(width)


def mobilenet_v3_small_torchvision(width: Width = 1.0) -> MobileNetV3:
    """The paper's small one; taps after the blocks 1, 3, 8 and 11 have 16, 24, 48 and 96 channels."""
    return MobileNetV3(TABLE_2, (1, 3, 8, 11), width)


def mobilenet_v3_large(width: Width = 1.0) -> MobileNetV3:
    """The paper's large one; taps after the blocks 3, 6, 12 and 15 have 24, 40, 112 and 160 channels."""
    return MobileNetV3(TABLE_1, (3, 6, 12, 15), width)
