"""Names of PaddleOCR's ResNet-50."""

from __future__ import annotations

from compress.converters.names import Pair


def resnet50_backbone() -> list[Pair]:
    """Stem and blocks; a shortcut's projection runs after the block's own layers."""
    pairs = norm_pair("backbone.conv1", "backbone.bn1", "backbone.conv")
    for stage, depth in enumerate((3, 4, 6, 3), 1):
        for index in range(depth):
            ours, theirs = f"backbone.layer{stage}.{index}", f"backbone.res{stage + 1}{chr(ord('a') + index)}"
            for number in (1, 2, 3):
                pairs += norm_pair(f"{ours}.conv{number}", f"{ours}.bn{number}", f"{theirs}.conv{number - 1}")
            if index == 0:
                pairs += norm_pair(f"{ours}.downsample.0", f"{ours}.downsample.1", f"{theirs}.short")
    return pairs


def norm_pair(conv: str, norm: str, theirs: str) -> list[Pair]:
    """A convolution and its batch norm, which are one layer there."""
    return [Pair(conv, f"{theirs}._conv"), Pair(norm, f"{theirs}._batch_norm")]
