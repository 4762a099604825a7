"""ResNet-18, ResNet-34 and ResNet-50 (He et al., "Deep Residual Learning for Image Recognition", 2016), without the classifier.

Parameter names and the place of the stride (the 3x3 convolution of a bottleneck) are torchvision's, so that its ImageNet weights
load. The `vd` variants are those of PP-OCR, with the stem and the shortcut of ResNet-D (He et al. 2019, "Bag of Tricks for Image
Classification with Convolutional Neural Networks", section 4.2, figures 2b and 2c).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from compress.models.layers import conv_bn, initialise

Width = Annotated[float, Field(gt=0, le=4)]
Stride = int | tuple[int, int]  # both ways, or down and across


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual (figure 5, left)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: Stride, downsample: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1 reduction, 3x3 convolution, 1x1 expansion and a residual (figure 5, right)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: Stride, downsample: nn.Module) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = downsample
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))


def shortcut(inputs: int, outputs: int, stride: Stride) -> nn.Module:
    """The identity where the original widths and the resolution agree, else a projection (option B of the paper)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def pooled_shortcut(inputs: int, outputs: int, stride: Stride) -> nn.Module:
    """A projection, of means of 2x2 pixels where the resolution is halved, instead of one pixel in four."""
    pool = nn.Identity() if stride == 1 else nn.AvgPool2d(stride)
    return nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Four stages of residual blocks after a 7x7 stem; the outputs of all four stages are the feature maps."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, int, int, int], stem: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels = add_stages(self, block, depths, stem, shortcut)
        initialise(self)
        damp_residuals(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        return staged(self, self.maxpool(self.relu(self.bn1(self.conv1(x)))))


class ResNetVd(nn.Module):
    """The same stages, each with a pooled shortcut around its first block, after a stem of three 3x3 convolutions."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, int, int, int], stem: int) -> None:
        super().__init__()
        half = stem // 2
        self.stem = nn.Sequential(conv_bn(3, half, 3, stride=2), conv_bn(half, half, 3), conv_bn(half, stem, 3))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels = add_stages(self, block, depths, stem, pooled_shortcut)
        initialise(self)
        damp_residuals(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        return staged(self, self.maxpool(self.stem(x)))


class ResNetLines(nn.Module):
    """The same stages for lines of text, all but the first halving the height alone, after 3x3 convolutions that keep the resolution."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        stem: int,
        convolutions: int,
        shortcut: Callable[[int, int, Stride], nn.Module],
    ) -> None:
        super().__init__()
        widths = [3, *[stem // 2] * (convolutions - 1), stem]
        self.stem = nn.Sequential(*(conv_bn(inputs, outputs, 3) for inputs, outputs in itertools.pairwise(widths)))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels = add_stages(self, block, depths, stem, shortcut, (2, 1))
        initialise(self)
        damp_residuals(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        return staged(self, self.maxpool(self.stem(x)))


def add_stages(
    network: nn.Module,
    block: type[BasicBlock] | type[Bottleneck],
    depths: tuple[int, int, int, int],
    stem: int,
    shortcut: Callable[[int, int, Stride], nn.Module],
    step: Stride = 2,
) -> tuple[int, ...]:
    """Give `network` its stages, `layer1` to `layer4`, each twice as wide as the one before; returns their output channels.

    shortcut: what goes around a stage's first block, from input channels, output channels and stride. step: stride of all stages but the
    first.
    """
    channels = tuple(stem * factor * block.expansion for factor in (1, 2, 4, 8))
    inputs = stem
    for number, (depth, outputs) in enumerate(zip(depths, channels, strict=True), 1):
        width, stride = outputs // block.expansion, 1 if number == 1 else step
        first = block(inputs, width, stride, shortcut(inputs, outputs, stride))
        network.add_module(f"layer{number}", nn.Sequential(first, *(block(outputs, width, 1, nn.Identity()) for _ in range(depth - 1))))
        inputs = outputs
    return channels


def staged(network: Any, x: Tensor) -> list[Tensor]:
    """The outputs of the stages, each fed to the next."""
    features = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        features.append(x)
    return features


def damp_residuals(network: nn.Module) -> None:
    """Start every residual branch at zero (Goyal et al. 2017, section 5.1): the network trains from scratch in fewer steps."""
    for module in network.modules():
        if isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)
        elif isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)


def resnet18(width: Width = 1.0) -> ResNet:
    """Basic blocks, depths 2, 2, 2, 2; 11.2 M parameters at full width."""
    return ResNet(BasicBlock, (2, 2, 2, 2), stem_channels(width))


def resnet34(width: Width = 1.0) -> ResNet:
    """Basic blocks, depths 3, 4, 6, 3; 21.3 M parameters at full width."""
    return ResNet(BasicBlock, (3, 4, 6, 3), stem_channels(width))


def resnet50(width: Width = 1.0) -> ResNet:
    """Bottlenecks, depths 3, 4, 6, 3; 23.5 M parameters at full width, 5.9 M at half."""
    return ResNet(Bottleneck, (3, 4, 6, 3), stem_channels(width))


def resnet18_vd(width: Width = 1.0) -> ResNetVd:
    """Of PP-OCR v2.0's server detector; 11.2 M parameters at full width."""
    return ResNetVd(BasicBlock, (2, 2, 2, 2), stem_channels(width))


def resnet50_vd(width: Width = 1.0) -> ResNetVd:
    """Of PP-OCRv3's teacher; 23.5 M parameters at full width."""
    return ResNetVd(Bottleneck, (3, 4, 6, 3), stem_channels(width))


def stem_channels(width: float) -> int:
    """64 times `width`, a multiple of 8; every stage is wider in proportion."""
    return max(8, round(64 * width / 8) * 8)
