"""Backbones for lines of text: they halve the height more often than the width, and give (B, channels, 1, T) features.

Strides are those of PP-OCR's recognisers (Du et al. 2020, "PP-OCR", section 2.3): the height is divided by 16, the width by 2, then the
highest value of each column is taken, of two columns each: one step for four pixels of width. `resnet31` has those of its own paper, with
as many steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from compress.models.backbones.mobilenet_v1_enhance import ROWS, MobileNetV1Enhance
from compress.models.backbones.mobilenet_v3 import TABLE_1, TABLE_2, Row
from compress.models.backbones.mobilenet_v3_ppocr import MobileNetV3PPOCR
from compress.models.backbones.mobilenet_v3_ppocr import Width as NarrowWidth
from compress.models.backbones.resnet import BasicBlock, ResNetLines, Width, pooled_shortcut, shortcut, stem_channels
from compress.models.backbones.resnet31 import ResNet31


class PooledColumns(nn.Module):
    """A trunk, whose last feature map becomes one row of steps: its highest values over the height, and over two columns each."""

    def __init__(self, trunk: nn.Module, channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return highest(self.trunk(x)[-1])


class HighestColumns(nn.Module):
    """:func:`highest` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return highest(x)


class HighestOfColumns(nn.Module):
    """A trunk, whose map becomes one row of steps: its highest values over the height."""

    def __init__(self, trunk: ResNet31) -> None:
        super().__init__()
        self.trunk = trunk
        self.channels = trunk.channels

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x).amax(2, keepdim=True)


def highest(x: Tensor) -> Tensor:
    """(B, C, 1, W / 2): of a (B, C, H, W) map the highest values over the height, and over two columns each."""
    return max_pool2d(x.amax(2, keepdim=True), (1, 2))


def mobilenet(rows: tuple[Row, ...], place: int, width: float) -> PooledColumns:
    """PP-OCR's MobileNetV3 with its last convolution and the strides of a recogniser: all but that of the row at `place`."""
    rows = (*rows[:place], replace(rows[place], stride=1), *rows[place + 1 :])
    trunk = MobileNetV3PPOCR(rows, width, True, (), halve_width=False)
    return PooledColumns(trunk, trunk.channels[-1])


def mobilenet_v3_small(width: NarrowWidth = 0.5) -> PooledColumns:
    """576 channels at full width, 288 at half."""
    return mobilenet(TABLE_2, 0, width)


def mobilenet_v3_large(width: NarrowWidth = 0.5) -> PooledColumns:
    """960 channels at full width, 480 at half, as in rec_mv3_none_bilstm_ctc."""
    return mobilenet(TABLE_1, 6, width)


def mobilenet_v1_enhance_v2(width: Width = 0.5) -> MobileNetV1Enhance:
    """That of PP-OCRv2's recogniser: its last stride is 1, and the highest values are taken; 1024 channels at full width."""
    kernel, outputs, _, squeeze = ROWS[-1]
    return MobileNetV1Enhance(width, (*ROWS[:-1], (kernel, outputs, 1, squeeze)), HighestColumns())


def resnet(width: float, stem: int, around: Callable[..., nn.Module]) -> PooledColumns:
    """ResNet-34 with `stem` convolutions, of 3x3, before its pooling."""
    trunk = ResNetLines(BasicBlock, (3, 4, 6, 3), stem_channels(width), stem, around)
    return PooledColumns(trunk, trunk.channels[-1])


def resnet34(width: Width = 1.0) -> PooledColumns:
    """ResNet-34 whose stem, one 3x3 convolution, keeps the resolution; 512 channels at full width."""
    return resnet(width, 1, shortcut)


def resnet34_vd(width: Width = 1.0) -> PooledColumns:
    """The same with three convolutions and pooled shortcuts, as in rec_r34_vd_none_bilstm_ctc."""
    return resnet(width, 3, pooled_shortcut)


def resnet31(width: Width = 1.0) -> HighestOfColumns:
    """The backbone of SAR, of whose map the highest value of each column is taken; 512 channels at full width."""
    return HighestOfColumns(ResNet31(stem_channels(width)))
