"""The ResNet of "Show, Attend and Read" (Li et al. 2019, table 1), for lines of text: residual blocks between which poolings stand, the
last of which halves the height alone. Features have an eighth of the height and a quarter of the width of a line.
"""

from __future__ import annotations

from torch import Tensor, nn

from compress.models.backbones.resnet import BasicBlock, Width, damp_residuals, shortcut, stem_channels
from compress.models.layers import conv_bn, initialise

DEPTHS = (1, 2, 5, 3)


class ResNet31(nn.Module):
    """Two convolutions, then four stages, each of its blocks and one more convolution: (B, 3, H, W) to (B, channels, H / 8, W / 4)."""

    def __init__(self, narrowest: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, narrowest, 3), conv_bn(narrowest, 2 * narrowest, 3))
        widths = (2, 4, 4, 8, 8)
        for number, depth in enumerate(DEPTHS):
            inputs, outputs = (narrowest * factor for factor in widths[number : number + 2])
            blocks = [BasicBlock(inputs, outputs, 1, shortcut(inputs, outputs, 1))]
            blocks += [BasicBlock(outputs, outputs, 1, nn.Identity()) for _ in range(depth - 1)]
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks, conv_bn(outputs, outputs, 3)))
        self.pool, self.flatten = nn.MaxPool2d(2), nn.MaxPool2d((2, 1))
        self.channels = narrowest * widths[-1]
        initialise(self)
        damp_residuals(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.pool(self.stem(x)))
        x = self.layer2(self.pool(x))
        return self.layer4(self.layer3(self.flatten(x)))


def resnet31(width: Width = 1.0) -> ResNet31:
    """64 to 512 channels at full width, 46 M parameters."""
    return ResNet31(stem_channels(width))
