"""Names of PaddleOCR's MobileNetV3."""

from __future__ import annotations

from collections.abc import Sequence

from compress.converters.names import Pair, conv_bn, squeeze

MOBILE_SLOPE = 0.2  # of the hard sigmoid in its squeeze-and-excite


def detector_backbone() -> list[Pair]:
    """MobileNetV3-large without squeeze-and-excite: its blocks lie in four stages, of which the last ends in the last convolution."""
    places = [f"backbone.stage{stage}.{place}" for stage, count in enumerate((3, 3, 6, 3)) for place in range(count)]
    return backbone("backbone.conv", places, "backbone.stage3.3", squeezed=())


def classifier_backbone() -> list[Pair]:
    """MobileNetV3-small; squeeze-and-excite in all blocks but the second and third."""
    places = [f"backbone.blocks.{place}" for place in range(11)]
    return backbone("backbone.conv1", places, "backbone.conv2", squeezed=(0, *range(3, 11)))


def backbone(stem: str, places: Sequence[str], last: str, squeezed: Sequence[int]) -> list[Pair]:
    """All layers, from Paddle's names of the stem, the blocks and the last convolution."""
    pairs = conv_bn("backbone.stem", stem)
    for index, theirs in enumerate(places):
        ours = f"backbone.blocks.{index}"
        pairs += conv_bn(f"{ours}.expand", f"{theirs}.expand_conv")
        pairs += conv_bn(f"{ours}.depthwise", f"{theirs}.bottleneck_conv")
        if index in squeezed:
            pairs += squeeze(f"{ours}.squeeze", f"{theirs}.mid_se", MOBILE_SLOPE)
        pairs += conv_bn(f"{ours}.project", f"{theirs}.linear_conv")
    return [*pairs, *conv_bn("backbone.last", last)]
