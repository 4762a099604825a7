"""The layers of PP-OCR's recognisers, and of the detectors of version 6, in the order of their exported graphs."""

from __future__ import annotations

from collections.abc import Sequence

from compress.converters.names import Pair

V3_SQUEEZED, V3_BLOCKS = (11, 12), 13
V4_SQUEEZED, V4_BLOCKS = (10, 11), 14


def pairs(*names: str) -> list[Pair]:
    """Layers of ours that have those names."""
    return [Pair(name) for name in names]


def with_norm(name: str) -> list[Pair]:
    """A convolution and its batch norm."""
    return pairs(f"{name}.0", f"{name}.1")


def gated(name: str) -> list[Pair]:
    """The two convolutions of a squeeze-and-excite."""
    return pairs(f"{name}.fc1", f"{name}.fc2")


def mobilenet_v1_enhance() -> list[Pair]:
    """The backbone of PP-OCRv3's recogniser."""
    found = with_norm("backbone.stem")
    for index in range(V3_BLOCKS):
        name = f"backbone.blocks.{index}"
        squeeze = gated(f"{name}.squeeze") if index in V3_SQUEEZED else []
        found += [*with_norm(f"{name}.depthwise"), *squeeze, *with_norm(f"{name}.pointwise")]
    return found


def lcnet_v3_lines() -> list[Pair]:
    """That of PP-OCRv4's and v5's, whose exports have the branches merged."""
    found = with_norm("backbone.stem")
    for index in range(V4_BLOCKS):
        name = f"backbone.blocks.{index}"
        found += pairs(f"{name}.depthwise.0", f"{name}.depthwise_activation")
        found += gated(f"{name}.squeeze") if index in V4_SQUEEZED else []
        found += pairs(f"{name}.pointwise.0", f"{name}.pointwise_activation")
    return found


def lcnet_v4(trunk: str, squeezed: Sequence[Sequence[bool]], stem: Sequence[Pair]) -> list[Pair]:
    """PP-OCRv6's backbone, whose exports have branches and batch norms merged."""
    found = list(stem)
    for stage, blocks in enumerate(squeezed):
        for index, squeeze in enumerate([False] * (stage > 0) + list(blocks)):
            name = f"{trunk}.stages.{stage}.{index}"
            found += pairs(f"{name}.depthwise.0")
            found += gated(f"{name}.squeeze") if squeeze else []
            found += pairs(f"{name}.expand.0", f"{name}.project.0")
    return found


def branched_stem(trunk: str) -> list[Pair]:
    """The stem of all but the tiny recogniser."""
    return pairs(*(f"{trunk}.stem.{name}.0" for name in ("first", "narrow", "widen", "join", "last")))


def plain_stem(trunk: str) -> list[Pair]:
    """The stem of the tiny recogniser, whose batch norms are still there."""
    return [*with_norm(f"{trunk}.stem.0"), *with_norm(f"{trunk}.stem.2")]


def global_blocks(name: str, blocks: int = 2) -> list[Pair]:
    """SVTR's blocks and their last layer norm."""
    layers = ("norm1", "mixer.qkv", "mixer.proj", "norm2", "fc1", "fc2")
    return pairs(*(f"{name}.blocks.{index}.{layer}" for index in range(blocks) for layer in layers), f"{name}.norm")


def svtr() -> list[Pair]:
    """The sequence model of PP-OCRv3 to v5, and the classifier."""
    convolutions = [
        [pair for name in names for pair in with_norm(f"sequence.{name}")]
        for names in (("reduce.0", "reduce.1"), ("expand", "join.0", "join.1"))
    ]
    return [*convolutions[0], *global_blocks("sequence.mixer"), *convolutions[1], Pair("head")]


def light_svtr() -> list[Pair]:
    """That of PP-OCRv6 small."""
    convolutions = [pair for name in ("shortcut", "reduce", "local") for pair in with_norm(f"sequence.{name}")]
    return [*convolutions, *global_blocks("sequence.mixer"), Pair("head")]


def separable() -> list[Pair]:
    """That of PP-OCRv6 tiny."""
    return [*with_norm("sequence.depthwise"), *with_norm("sequence.pointwise"), *pairs("sequence.linear", "head")]


def separable_rse_fpn() -> list[Pair]:
    """The neck of PP-OCRv6's detectors, which runs from the coarsest level to the finest."""
    found = []
    for level in (3, 2, 1, 0):
        found += [Pair(f"neck.laterals.{level}.conv"), *gated(f"neck.laterals.{level}.squeeze")]
    for level in (3, 2, 1, 0):
        name = f"neck.smooths.{level}"
        found += [*pairs(f"{name}.depthwise", f"{name}.pointwise.conv"), *gated(f"{name}.pointwise.squeeze")]
    return found


def merged_head() -> list[Pair]:
    """DB's head with merged batch norms; files for inference lack the branch of the threshold."""
    return pairs(*(f"{branch}.{layer}" for branch in ("probability", "threshold") for layer in ("conv.0", "up1.0", "up2")))
