"""Names of PaddleOCR's ResNets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compress.converters.names import Pair

DEPTHS_18, DEPTHS_50 = (2, 2, 2, 2), (3, 4, 6, 3)


def resnet50_backbone() -> list[Pair]:
    """Stem and blocks."""
    stem = norm_pair("backbone.conv1", "backbone.bn1", "backbone.conv")
    return stem + stages(DEPTHS_50, 3, lambda stage, index: f"res{stage + 2}{chr(ord('a') + index)}", projection=0)


def resnet_vd_backbone(depths: Sequence[int], convolutions: int) -> list[Pair]:
    """Stem of three convolutions and blocks. depths: blocks of each stage. convolutions: of each block."""
    stem = [pair for i in range(3) for pair in norm_pair(f"backbone.stem.{i}.0", f"backbone.stem.{i}.1", f"backbone.conv1_{i + 1}")]
    return stem + stages(depths, convolutions, lambda stage, index: f"bb_{stage}_{index}", projection=1)


def stages(depths: Sequence[int], convolutions: int, name: Callable[[int, int], str], projection: int) -> list[Pair]:
    """All blocks; a shortcut's projection runs after the block's own layers.

    name: of a block, from the numbers of its stage and of itself, from 0 on. projection: place of the convolution in our shortcut.
    """
    pairs = []
    for stage, depth in enumerate(depths):
        for index in range(depth):
            ours, theirs = f"backbone.layer{stage + 1}.{index}", f"backbone.{name(stage, index)}"
            for number in range(convolutions):
                pairs += norm_pair(f"{ours}.conv{number + 1}", f"{ours}.bn{number + 1}", f"{theirs}.conv{number}")
            if index == 0:
                pairs += norm_pair(f"{ours}.downsample.{projection}", f"{ours}.downsample.{projection + 1}", f"{theirs}.short")
    return pairs


def norm_pair(conv: str, norm: str, theirs: str) -> list[Pair]:
    """A convolution and its batch norm, which are one layer there."""
    return [Pair(conv, f"{theirs}._conv"), Pair(norm, f"{theirs}._batch_norm")]
