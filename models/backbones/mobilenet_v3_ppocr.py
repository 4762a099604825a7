"""MobileNetV3 as PP-OCR has it (Du et al. 2020, "PP-OCR", section 2.1): the paper's blocks (Howard et al. 2019, tables 1 and 2), of
which the first expands too, the last convolution as the coarsest feature map, and squeeze-and-excite in a quarter of the width exactly.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from compress.models.backbones.mobilenet_v3 import TABLE_1, TABLE_2, Row, round_to_8, tapped
from compress.models.layers import SqueezeExcite, conv_bn, initialise

LARGE_TAPS = (2, 5, 11)


class Block(nn.Module):
    """Expansion, depthwise convolution, squeeze-and-excite, projection; a residual where the original widths agree."""

    def __init__(self, inputs: int, inner: int, outputs: int, row: Row, stride: int | tuple[int, int], squeeze: bool) -> None:
        super().__init__()
        self.expand = conv_bn(inputs, inner, activation=row.activation)
        self.depthwise = conv_bn(inner, inner, row.kernel, stride=stride, groups=inner, activation=row.activation)
        self.squeeze = SqueezeExcite(inner, inner // 4) if squeeze else nn.Identity()
        self.project = conv_bn(inner, outputs, activation=None)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class MobileNetV3PPOCR(nn.Module):
    """Stem, blocks and last convolution; gives the outputs of the blocks in `taps`, and of the last convolution.

    halve_width: whether a block with stride 2 halves the width too; a recogniser keeps it.
    """

    def __init__(self, rows: tuple[Row, ...], width: float, squeeze: bool, taps: tuple[int, ...], halve_width: bool) -> None:
        super().__init__()
        outputs = [round_to_8(row.outputs * width) for row in rows]
        last = round_to_8(rows[-1].expansion * width)
        inputs = [round_to_8(16 * width), *outputs]
        self.taps = taps
        self.channels = (*(outputs[tap] for tap in taps), last)
        self.stem = conv_bn(3, inputs[0], 3, stride=2, activation=nn.Hardswish)
        self.blocks = nn.ModuleList(
            Block(
                inputs[i],
                round_to_8(row.expansion * width),
                outputs[i],
                row,
                row.stride if halve_width or row.stride == 1 else (row.stride, 1),
                squeeze and row.squeeze,
            )
            for i, row in enumerate(rows)
        )
        self.last = conv_bn(outputs[-1], last, activation=nn.Hardswish)
        initialise(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        *features, x = tapped(self.stem(x), self.blocks, (*self.taps, len(self.blocks) - 1))
        return [*features, self.last(x)]


Width = Annotated[float, Field(gt=0, le=2)]


def mobilenet_v3_large_ppocr(width: Width = 0.5, squeeze: bool = False) -> MobileNetV3PPOCR:
    """The detectors' backbone, PP-OCR v2.0 to v3: strides 4, 8, 16 and 32; at half the width 16, 24, 56 and 480 channels."""
    return MobileNetV3PPOCR(TABLE_1, width, squeeze, LARGE_TAPS, halve_width=True)


def mobilenet_v3_small_lines(width: float) -> MobileNetV3PPOCR:
    """The backbone of PP-OCR's angle classifier: one feature map, at 1/32 of a line's height and half of its width."""
    return MobileNetV3PPOCR(TABLE_2, width, True, (), halve_width=False)
