"""Names of PaddleOCR's PP-HGNet."""

from __future__ import annotations

from compress.converters.names import Pair, conv_bn
from compress.models.backbones.pphgnet import CONVOLUTIONS, STAGES


def pphgnet_backbone() -> list[Pair]:
    """All layers of the small one."""
    pairs = [pair for i in range(3) for pair in conv_bn(f"backbone.stem.{i}", f"backbone.stem.{i}")]
    for stage, (_, _, blocks) in enumerate(STAGES):
        if stage:
            pairs += conv_bn(f"backbone.downs.{stage}", f"backbone.stages.{stage}.downsample")
        for index in range(blocks):
            ours, theirs = f"backbone.stages.{stage}.{index}", f"backbone.stages.{stage}.blocks.{index}"
            for number in range(CONVOLUTIONS):
                pairs += conv_bn(f"{ours}.layers.{number}", f"{theirs}.layers.{number}")
            pairs += conv_bn(f"{ours}.join", f"{theirs}.aggregation_conv")
            pairs.append(Pair(f"{ours}.squeeze.conv", f"{theirs}.att.conv"))
    return pairs
