"""ResNet-18, ResNet-34 and ResNet-50 (He et al., "Deep Residual Learning for Image Recognition", 2016), without the classifier.

Parameter names and the place of the stride (the 3x3 convolution of a bottleneck) are torchvision's, so that its ImageNet weights
load.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from models.layers import initialise

Width = Annotated[float, Field(gt=0, le=4)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual (figure 5, left)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1 reduction, 3x3 convolution, 1x1 expansion and a residual (figure 5, right)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + self.downsample(x))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity where the original widths and the resolution agree, else a projection (option B of the paper)."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Four stages of residual blocks after a 7x7 stem; the outputs of all four stages are the feature maps."""

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, int, int, int], stem: int) -> None:
        super().__init__()
        self.channels = tuple(stem * factor * block.expansion for factor in (1, 2, 4, 8))
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = stem
        for number, (depth, outputs) in enumerate(zip(depths, self.channels, strict=True), 1):
            width, stride = outputs // block.expansion, 1 if number == 1 else 2
            blocks = [block(inputs, width, stride), *(block(outputs, width, 1) for _ in range(depth - 1))]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            inputs = outputs
        initialise(self)
        damp_residuals(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
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


def stem_channels(width: float) -> int:
    """64 times `width`, a multiple of 8; every stage is wider in proportion."""
    return max(8, round(64 * width / 8) * 8)
