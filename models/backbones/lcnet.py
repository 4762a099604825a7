"""PP-LCNet (Cui et al. 2021, "PP-LCNet: a lightweight CPU convolutional neural network"), without pooling and classifier."""

from __future__ import annotations

from torch import Tensor, nn

from compress.models.backbones.mobilenet_v3 import Width, round_to_8, tapped
from compress.models.layers import SqueezeExcite, conv_bn, initialise

# Kernel, output channels, stride, squeeze-and-excite; PP-LCNetV3 begins alike.
FIRST_ROWS = ((3, 32, 1, False), (3, 64, 2, False), (3, 64, 1, False), (3, 128, 2, False), (3, 128, 1, False), (3, 256, 2, False))
LAST_ROWS = ((5, 512, 2, True), (5, 512, 1, True))
ROWS = (*FIRST_ROWS, *[(5, 256, 1, False)] * 5, *LAST_ROWS)
TAPS = (2, 4, 10, 12)


class LCNetBlock(nn.Module):
    """Depthwise convolution, squeeze-and-excite in the last two, pointwise convolution, each convolution with batch norm and hard swish."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int], squeeze: bool) -> None:
        super().__init__()
        self.depthwise = conv_bn(inputs, inputs, kernel, stride=stride, groups=inputs, activation=nn.Hardswish)
        self.squeeze = SqueezeExcite(inputs, inputs // 4) if squeeze else nn.Identity()
        self.pointwise = conv_bn(inputs, outputs, activation=nn.Hardswish)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.squeeze(self.depthwise(x)))


class LCNet(nn.Module):
    """Stem and blocks; the last outputs at strides 4, 8, 16 and 32 are the feature maps."""

    def __init__(self, width: float) -> None:
        super().__init__()
        outputs = [round_to_8(row[1] * width) for row in ROWS]
        inputs = [round_to_8(16 * width), *outputs]
        self.channels = tuple(outputs[tap] for tap in TAPS)
        self.stem = conv_bn(3, inputs[0], 3, stride=2, activation=nn.Hardswish)
        self.blocks = nn.ModuleList(
            LCNetBlock(inputs[i], outputs[i], kernel, stride, squeeze) for i, (kernel, _, stride, squeeze) in enumerate(ROWS)
        )
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        return tapped(self.stem(x), self.blocks, TAPS)


def lcnet(width: Width = 1.0) -> LCNet:
    """At full width 64, 128, 256 and 512 channels."""
    return LCNet(width)
