"""Names of PaddleOCR's PP-LCNetV3, and its parallel branches as one convolution."""

from __future__ import annotations

import numpy as np

from compress.converters.names import Pair, Tensors, conv_bn, squeeze

BLOCKS = [
    f"backbone.blocks{stage}.{place}" for stage, count in zip((2, 3, 4, 5, 6), (1, 2, 2, 5, 4), strict=True) for place in range(count)
]
HALVING = (1, 3, 5, 10)
SQUEEZED = (10, 11)
EPSILON = 1e-5  # of Paddle's batch norms


def lcnet_v3_backbone() -> list[Pair]:
    """All layers; the tensors are those of :func:`merged`."""
    pairs = conv_bn("backbone.stem", "backbone.conv1")
    for index, theirs in enumerate(BLOCKS):
        ours = f"backbone.blocks.{index}"
        pairs.append(Pair(f"{ours}.depthwise.0", f"{theirs}.dw_conv.merged"))
        if index not in HALVING:
            pairs.append(Pair(f"{ours}.depthwise_activation", f"{theirs}.dw_conv.act.lab"))
        if index in SQUEEZED:
            pairs += squeeze(f"{ours}.squeeze", f"{theirs}.se", slope=1 / 6)
        pairs.append(Pair(f"{ours}.pointwise.0", f"{theirs}.pw_conv.merged"))
        pairs.append(Pair(f"{ours}.pointwise_activation", f"{theirs}.pw_conv.act.lab"))
    return pairs + [Pair(f"backbone.outputs.{level}", f"backbone.layer_list.{level}") for level in range(4)]


def merged(tensors: Tensors) -> Tensors:
    """The tensors with every sum of branches, and the scale and shift after it, as one convolution with bias, `<layer>.merged`."""
    layers = [f"{block}.{part}" for block in BLOCKS for part in ("dw_conv", "pw_conv")]
    if not all(f"{layer}.lab.scale" in tensors for layer in layers):
        return tensors
    result = dict(tensors)
    for layer in layers:
        weight, bias = branches(tensors, layer)
        scale, shift = tensors[f"{layer}.lab.scale"], tensors[f"{layer}.lab.bias"]
        for name in [name for name in result if name.startswith(f"{layer}.") and not name.startswith(f"{layer}.act.")]:
            del result[name]
        result[f"{layer}.merged.weight"], result[f"{layer}.merged.bias"] = weight * scale, bias * scale + shift
    return result


def branches(tensors: Tensors, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of the sum of a layer's branches; those of the convolution that Paddle itself has merged, where it has."""
    if f"{layer}.reparam_conv.weight" in tensors:
        return tensors[f"{layer}.reparam_conv.weight"], tensors[f"{layer}.reparam_conv.bias"]
    first = tensors[f"{layer}.conv_kxk.0.conv.weight"]
    weight, bias = np.zeros(first.shape, np.float64), np.zeros(len(first), np.float64)
    middle = first.shape[2] // 2
    count = len({name for name in tensors if name.startswith(f"{layer}.conv_kxk.") and name.endswith(".conv.weight")})
    for number in range(count):
        scale, shift = norm(tensors, f"{layer}.conv_kxk.{number}.bn")
        weight += tensors[f"{layer}.conv_kxk.{number}.conv.weight"] * scale[:, None, None, None]
        bias += shift
    if f"{layer}.conv_1x1.conv.weight" in tensors:
        scale, shift = norm(tensors, f"{layer}.conv_1x1.bn")
        weight[:, :, middle, middle] += tensors[f"{layer}.conv_1x1.conv.weight"][:, :, 0, 0] * scale[:, None]
        bias += shift
    if f"{layer}.identity.weight" in tensors:
        scale, shift = norm(tensors, f"{layer}.identity")
        rows = np.arange(len(first))
        weight[rows, rows % first.shape[1], middle, middle] += scale
        bias += shift
    return weight, bias


def norm(tensors: Tensors, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A batch norm's scale and shift of each channel."""
    weight, bias, mean, variance = (tensors[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias", "_mean", "_variance"))
    scale = weight / np.sqrt(variance + EPSILON)
    return scale, bias - mean * scale
