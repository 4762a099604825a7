"""The ResNet of "Show, Attend and Read" (Li et al. 2019, table 1), for lines of text: residual blocks between which poolings stand, the
last of which halves the height alone. Features have an eighth of the height and a quarter of the width of a line.
"""

from __future__ import annotations

from torch import Tensor, nn

from compress.models.backbones.resnet import BasicBlock, Width, damp_residuals, shortcut, stem_channels
from compress.models.layers import conv_bn, initialise


class ResNet31(nn.Module):
    """Two convolutions, then four stages, each of its blocks and one more convolution: (B, 3, H, W) to (B, channels, H / 8, W / 4)."""

    def __init__(self, narrowest: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, narrowest, 3), conv_bn(narrowest, 2 * narrowest, 3))
        self.layer1 = stage(2 * narrowest, 4 * narrowest, 1)
        self.layer2 = stage(4 * narrowest, 4 * narrowest, 2)
        self.layer3 = stage(4 * narrowest, 8 * narrowest, 5)
        self.layer4 = stage(8 * narrowest, 8 * narrowest, 3)
        self.pool, self.flatten = nn.MaxPool2d(2), nn.MaxPool2d((2, 1))
        self.channels = 8 * narrowest
        initialise(self)
        damp_residuals(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.pool(self.stem(x)))
        x = self.layer2(self.pool(x))
        return self.layer4(self.layer3(self.flatten(x)))


def stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """`depth` residual blocks, and one more convolution."""
    first = BasicBlock(inputs, outputs, 1, shortcut(inputs, outputs, 1))
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, nn.Identity()) for _ in range(depth - 1)), conv_bn(outputs, outputs, 3))


def resnet31(width: Width = 1.0) -> ResNet31:
    """64 to 512 channels at full width, 46 M parameters."""
    return ResNet31(stem_channels(width))
