"""MobileNetV1Enhance, the backbone of PP-OCRv3's recogniser (Li et al. 2022, "PP-OCRv3", section 3.1): MobileNetV1's separable
convolutions with hard swish, and squeeze-and-excite in the last two.
"""

from __future__ import annotations

from torch import Tensor, nn

from compress.models.backbones.lcnet import LCNetBlock
from compress.models.backbones.mobilenet_v3 import Width
from compress.models.layers import conv_bn, initialise

# Kernel, output channels, stride, squeeze-and-excite: 48 rows of pixels become 3, and two pixels of width become one.
Rows = tuple[tuple[int, int, int | tuple[int, int], bool], ...]
ROWS: Rows = (
    (3, 64, 1, False),
    (3, 128, 1, False),
    (3, 128, 1, False),
    (3, 256, (2, 1), False),
    (3, 256, 1, False),
    (3, 512, (2, 1), False),
    *[(5, 512, 1, False)] * 5,
    (5, 1024, (2, 1), True),
    (5, 1024, (1, 2), True),
)


class MobileNetV1Enhance(nn.Module):
    """Stem, blocks, and what `pool` makes of their columns: (B, 3, H, W) lines to (B, channels, 1, T) features."""

    def __init__(self, width: float, rows: Rows, pool: nn.Module) -> None:
        super().__init__()
        outputs = [int(row[1] * width) for row in rows]
        inputs = [int(32 * width), *outputs]
        self.channels = outputs[-1]
        self.stem = conv_bn(3, inputs[0], 3, stride=2, activation=nn.Hardswish)
        self.blocks = nn.Sequential(
            *(LCNetBlock(inputs[i], outputs[i], kernel, stride, squeeze) for i, (kernel, _, stride, squeeze) in enumerate(rows))
        )
        self.pool = pool
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.blocks(self.stem(x)))


def mobilenet_v1_enhance(width: Width = 0.5) -> MobileNetV1Enhance:
    """1024 channels at full width; 512 at half, as in PP-OCRv3."""
    return MobileNetV1Enhance(width, ROWS, nn.AvgPool2d(2))
