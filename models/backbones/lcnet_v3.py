"""PP-LCNetV3, the backbone of PP-OCRv4's mobile detector and recogniser (after Cui et al. 2021, "PP-LCNet"), in its form for inference.

PaddleOCR trains each convolution of a block as a sum of parallel branches with batch norm (Ding et al. 2021, "RepVGG") and a learned scale
and shift: `branches: 4` of stage `train`. All of that is linear, and is one convolution with batch norm here. The scale and shift after an
activation stay.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from compress.models.backbones.lcnet import FIRST_ROWS, LAST_ROWS
from compress.models.backbones.mobilenet_v3 import tapped
from compress.models.layers import SqueezeExcite, branching_conv_bn, conv_bn, initialise

ROWS = (*FIRST_ROWS, *[(5, 256, 1, False)] * 4, *LAST_ROWS, *[(5, 512, 1, False)] * 2)
TAPS = (2, 4, 9, 13)
# Those of the recogniser: 48 rows of pixels become 3, and four pixels of width become one.
LINE_STRIDES = {3: (2, 1), 5: (1, 2), 10: (2, 1), 12: (2, 1)}
LINE_ROWS = tuple((kernel, outputs, LINE_STRIDES.get(place, 1), squeeze) for place, (kernel, outputs, _, squeeze) in enumerate(ROWS))
OUTPUTS = (16, 24, 56, 480)  # after a 1x1 convolution of each tap: the widths of MobileNetV3-large at half its width


class ScaledHardswish(nn.Module):
    """Hard swish, then one learned scale and shift of all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * nn.functional.hardswish(x) + self.bias


class LCNetV3Block(nn.Module):
    """Depthwise and pointwise convolution, with squeeze-and-excite between them; no activation between them where both sides are halved."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int], squeeze: bool) -> None:
        super().__init__()
        self.depthwise = branching_conv_bn(inputs, inputs, kernel, stride=stride, groups=inputs)
        self.depthwise_activation = ScaledHardswish() if stride != 2 else nn.Identity()
        self.squeeze = SqueezeExcite(inputs, inputs // 4) if squeeze else nn.Identity()
        self.pointwise = branching_conv_bn(inputs, outputs)
        self.pointwise_activation = ScaledHardswish()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(self.depthwise_activation(self.depthwise(x)))
        return self.pointwise_activation(self.pointwise(x))


class LCNetV3(nn.Module):
    """Stem, blocks, and a 1x1 convolution of each tap; strides 4, 8, 16 and 32."""

    def __init__(self, width: float) -> None:
        super().__init__()
        outputs = [round_to_16(row[1] * width) for row in ROWS]
        inputs = [round_to_16(16 * width), *outputs]
        self.channels = tuple(max(1, int(channels * width)) for channels in OUTPUTS)
        self.stem = conv_bn(3, inputs[0], 3, stride=2, activation=None)
        self.blocks = nn.ModuleList(
            LCNetV3Block(inputs[i], outputs[i], kernel, stride, squeeze) for i, (kernel, _, stride, squeeze) in enumerate(ROWS)
        )
        self.outputs = nn.ModuleList(nn.Conv2d(outputs[tap], channels, 1) for tap, channels in zip(TAPS, self.channels, strict=True))
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = tapped(self.stem(x), self.blocks, TAPS)
        return [output(feature) for output, feature in zip(self.outputs, features, strict=True)]


def round_to_16(channels: float) -> int:
    """The nearest multiple of 16, at least 16, never more than 10 % below."""
    rounded = max(16, int(channels + 8) // 16 * 16)
    return rounded if rounded >= 0.9 * channels else rounded + 16


def lcnet_v3(width: Annotated[float, Field(gt=0, le=2)] = 0.75) -> LCNetV3:
    """At 0.75, as in PP-OCRv4's mobile detector, 12, 18, 42 and 360 channels."""
    return LCNetV3(width)


class LCNetV3Lines(nn.Module):
    """Stem, blocks, and the mean of 3 x 2 columns: (B, 3, 48, W) lines to (B, channels, 1, W / 8) features."""

    def __init__(self, width: float) -> None:
        super().__init__()
        outputs = [round_to_16(row[1] * width) for row in LINE_ROWS]
        inputs = [round_to_16(16 * width), *outputs]
        self.channels = outputs[-1]
        self.stem = conv_bn(3, inputs[0], 3, stride=2, activation=None)
        self.blocks = nn.Sequential(
            *(LCNetV3Block(inputs[i], outputs[i], kernel, stride, squeeze) for i, (kernel, _, stride, squeeze) in enumerate(LINE_ROWS))
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(self.blocks(self.stem(x)), (3, 2))


def lcnet_v3_lines(width: Annotated[float, Field(gt=0, le=2)] = 0.95) -> LCNetV3Lines:
    """At 0.95, as in the mobile recognisers of PP-OCRv4 and v5, 480 channels."""
    return LCNetV3Lines(width)
