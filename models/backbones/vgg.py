"""VGG-16 with batch norm (Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015, table 1, column
D; Ioffe & Szegedy 2015), without the classifier.

Parameter names are torchvision's (`features.0.weight` ...), so that its ImageNet weights load.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from compress.models.layers import initialise

Width = Annotated[float, Field(gt=0, le=4)]

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # output channels of each stage's 3x3 convolutions, and how many there are
# After the second to the fifth pooling, as EAST takes them (Zhou et al. 2017, section 3.2): strides 4, 8, 16 and 32.
POOLED = (13, 23, 33, 43)


class VGG(nn.Module):
    """Five stages of 3x3 convolutions with batch norm and ReLU, each followed by 2x2 max pooling.

    taps: places in `features` whose outputs are the feature maps, in ascending order; nothing is built behind the last of them.
    """

    def __init__(self, width: float, taps: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths: list[int] = []  # of the output of every layer
        inputs = 3
        for channels, depth in STAGES:
            outputs = max(8, round(channels * width / 8) * 8)
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(2, 2))
            widths += [outputs] * (3 * depth + 1)
        self.features = nn.Sequential(*layers[: taps[-1] + 1])
        self.taps = frozenset(taps)
        self.channels = tuple(widths[tap] for tap in taps)
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.taps:
                features.append(x)
        return features


def vgg16_bn(width: Width = 1.0) -> VGG:
    """13 convolutions; 14.7 M parameters at full width."""
    return VGG(width, POOLED)
