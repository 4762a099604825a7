"""Feature pyramids with concatenated levels, the necks of DB (Liao et al. 2020, figure 3; Lin et al. 2017 for the pyramid)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate

from compress.models.contract import Width
from compress.models.layers import SqueezeExcite, conv_bn, initialise

Channels = Annotated[int, Field(gt=0, le=2048, multiple_of=4)]


class FPN(nn.Module):
    """1x1 laterals, nearest upsampling and addition, a 3x3 smoothing of each level, all joined at stride 4.

    layer: what a lateral and a smoothing are, from input channels, output channels and kernel. smooth_channels: width of each level
    after smoothing; a quarter of `channels` unless said.
    """

    def __init__(
        self, inputs: Sequence[int], channels: int, layer: Callable[[int, int, int], nn.Module], smooth_channels: int | None = None
    ) -> None:
        super().__init__()
        smooth_channels = smooth_channels or channels // 4
        self.channels = smooth_channels * len(inputs)
        self.laterals = nn.ModuleList(layer(width, channels, 1) for width in inputs)
        self.smooths = nn.ModuleList(layer(channels, smooth_channels, 3) for _ in inputs)
        initialise(self)

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        return joined([smooth(level) for smooth, level in zip(self.smooths, top_down(levels), strict=True)])


def top_down(levels: list[Tensor]) -> list[Tensor]:
    """Add to each level, finest first, all that are coarser, each twice as coarse as the one before."""
    for finer in reversed(range(len(levels) - 1)):
        levels[finer] = levels[finer] + interpolate(levels[finer + 1], scale_factor=2.0, mode="nearest")
    return levels


def joined(levels: list[Tensor]) -> Tensor:
    """Levels, finest first, at the finest one's resolution, concatenated with the coarsest first."""
    return torch.cat(enlarged(levels), 1)


def enlarged(levels: list[Tensor]) -> list[Tensor]:
    """Levels, finest first, at the finest one's resolution, the coarsest first."""
    return [interpolate(level, scale_factor=2.0**i, mode="nearest") if i else level for i, level in enumerate(levels)][::-1]


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution alone, without bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class ResidualSqueeze(nn.Module):
    """A convolution whose output has its squeeze-and-excite added to it (PP-OCRv3, Li et al. 2022, section 2.1.3)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, kernel)
        self.squeeze = SqueezeExcite(outputs, max(1, outputs // 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.squeeze(x)


class SeparableSqueeze(nn.Module):
    """The same of a depthwise convolution and a 1x1 one, as PP-OCRv6's detectors smooth their levels."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs)
        self.pointwise = ResidualSqueeze(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class IntraCL(nn.Module):
    """Context along words in three rounds of shrinking kernels: a square, a column and a row, whose outputs are added.

    After the intra-instance module of I3CL (Du et al. 2022, "I3CL: Intra- and Inter-Instance Collaborative Learning for
    Arbitrary-Shaped Scene Text Detection", section 3.2), in half of the width, as in PP-OCRv4's server detector.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.rounds = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(inner, inner, kernel, padding="same") for kernel in ((size, size), (size, 1), (1, size)))
            for size in (7, 5, 3)
        )
        self.restore = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(x)
        for square, column, row in cast(Iterable[nn.ModuleList], self.rounds):
            y = square(y) + column(y) + row(y)
        return x + self.restore(y)


class LKPAN(nn.Module):
    """Large-kernel path aggregation (PP-OCRv3, section 2.1.1; Liu et al. 2018 for the path): down the pyramid, and up again."""

    def __init__(self, inputs: Sequence[int], channels: int, intracl: bool) -> None:
        super().__init__()
        self.channels = channels
        quarter = channels // 4
        self.laterals = nn.ModuleList(conv(width, channels, 1) for width in inputs)
        self.reduces = nn.ModuleList(conv(channels, quarter, 9) for _ in inputs)
        self.downs = nn.ModuleList(conv(quarter, quarter, 3, stride=2) for _ in inputs[1:])
        smooths = [conv(quarter, quarter, 9) for _ in inputs]
        self.smooths = nn.ModuleList(nn.Sequential(smooth, IntraCL(quarter)) if intracl else smooth for smooth in smooths)
        initialise(self)

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = top_down([lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)])
        levels = [reduce(level) for reduce, level in zip(self.reduces, levels, strict=True)]
        for coarser, down in enumerate(self.downs, 1):
            levels[coarser] = levels[coarser] + down(levels[coarser - 1])
        return joined([smooth(level) for smooth, level in zip(self.smooths, levels, strict=True)])


def fpn(inputs: Sequence[int], channels: Channels = 96, smooth_channels: Width | None = None) -> FPN:
    """Every layer with batch norm and ReLU. channels: inner width; 96 in the published table, 256 in the papers of DB and PSENet.

    smooth_channels: width of each of the four levels that are joined; a quarter of `channels` unless said, as in DB. 256 in PSENet.
    """
    return FPN(inputs, channels, conv_bn, smooth_channels)


def db_fpn(inputs: Sequence[int], channels: Channels = 96) -> FPN:
    """Convolutions alone, as in the DB authors' own code and PP-OCR v2."""
    return FPN(inputs, channels, conv)


def rse_fpn(inputs: Sequence[int], channels: Channels = 96) -> FPN:
    """Every layer with a residual squeeze-and-excite, as in the students of PP-OCRv3 and v4."""
    return FPN(inputs, channels, ResidualSqueeze)


def separable_rse_fpn(inputs: Sequence[int], channels: Channels = 64, kernel: Annotated[int, Field(ge=3, le=15)] = 5) -> FPN:
    """As in PP-OCRv6: 64 channels and 5x5 smoothing in the tiny detector, 96 and 7x7 in the small one.

    kernel: of the smoothing, odd.
    """
    neck = FPN(inputs, channels, ResidualSqueeze)
    neck.smooths = nn.ModuleList(SeparableSqueeze(channels, channels // 4, kernel | 1) for _ in inputs)
    initialise(neck)
    return neck


def lkpan(inputs: Sequence[int], channels: Channels = 256, intracl: bool = False) -> LKPAN:
    """The neck of PP-OCRv3's teacher. intracl: whether :class:`IntraCL` follows on every level, as in PP-OCRv4's server detector."""
    return LKPAN(inputs, channels, intracl)
