"""Weights that leave room for sums of two products in 16 bits, which is all that some processors have for them.

x86 before VNNI multiplies bytes in pairs of neighbouring channels (VPMADDUBSW), and what a sum of two products has beyond 16 bits is cut
off: 255 * 127 twice is 64,770, of 32,767. NNCF's remedy is to leave every weight a bit less. But activations share one scale a tensor, so
that most channels never come near 255: here the steps of those output channels alone are widened, by 2 at most, in which two neighbours
could add up to too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.quantization.folding import TRANSPOSED, Affine, by_channel

MOST = 255  # of an activation
ROOM = MOST * 127  # rounding may add half a step to each of the two weights, and 255 * 128 < 2 ** 15
UNSEEN = 1.25  # images to come may reach this much further than those that are shown


@torch.no_grad()
def leave_room(
    network: nn.Module, quantizers: Mapping[str, Sequence[Any]], images: Iterable[Tensor], *, correct_biases: bool = True
) -> dict[str, float]:
    """Widen, in place, the steps of weights of a quantized network until no sum of two neighbouring products leaves 16 bits.

    quantizers: layer name -> the quantizer of its weight, and those of its input. images: normalised (B, 3, H, W), at least one; no
    activation is expected to go further than 1.25 times what they show, nor can it beyond its range. correct_biases: biases take up what
    the coarser rounding changes in the mean. Depthwise layers, which sum over no channels, are left alone: they are computed otherwise.
    Returns the layers that were changed, with the widest factor of each.
    """
    layers: dict[str, Any] = {name: network.get_submodule(name) for name, found in quantizers.items() if len(found) > 1}
    summing = {name: layer for name, layer in layers.items() if by_output(layer, layer.weight).shape[2] > 1}
    inputs = inputs_of(network, summing.values(), images)
    widened = {}
    for name, layer in summing.items():
        weights, *activations = quantizers[name]
        highest, means = inputs[layer]
        factors = needed(layer, weights, reach(highest, activations))
        if factors.max() > 1:
            widened[name] = factors.max().item()
            before = weights(layer.weight)
            weights.scale.mul_(factors.view(-1, weights.scale.numel()).amax(0).reshape(weights.scale.shape))
            if correct_biases and layer.bias is not None:
                lost = by_output(layer, before - weights(layer.weight))
                layer.bias += (lost * of_group(layer, means, len(lost))[:, None]).sum((1, 2))
    return widened


def inputs_of(network: nn.Module, layers: Iterable[nn.Module], images: Iterable[Tensor]) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Highest value, at least 0, and mean of every channel that each layer is given on these images, both (channels,)."""
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in layers}

    def note(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        values = by_channel(layer, given[0])
        seen[layer].append((values.amax(1).clamp(min=0), values.mean(1)))

    handles = [layer.register_forward_pre_hook(note) for layer in seen]
    try:
        for image in images:
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return {
        layer: (torch.stack([highest for highest, _ in calls]).amax(0), torch.stack([mean for _, mean in calls]).mean(0))
        for layer, calls in seen.items()
    }


def reach(highest: Tensor, quantizers: Sequence[Any]) -> Tensor:
    """The integers, 0..255, up to which channels come whose highest values are `highest`. Of several quantizers the finest counts."""
    ranges = [quantizer.get_input_low_input_high() for quantizer in quantizers]
    step = min(((high - low) / MOST).min() for low, high in ranges)
    zero = max((-low / step).max() for low, _ in ranges)
    return (zero + UNSEEN * highest / step).clamp(0, MOST)


def needed(layer: Affine, quantizer: Any, integers: Tensor) -> Tensor:
    """By how much the steps of a layer's weights must be widened, (outputs,), all at least 1, for inputs up to these integers."""
    low, high = quantizer.get_input_low_input_high()
    steps = (high - low) / (quantizer.levels - 1)
    rows = by_output(layer, layer.weight / steps)
    # As they lie in a packed matrix: the channels of the first tap, of the second and so on, of which runtimes take pairs from the start.
    products = (rows * of_group(layer, integers, len(rows))[:, None]).flatten(1)
    sums = [signed[:, 1:] + signed[:, :-1] for signed in (products.clamp(min=0), (-products).clamp(min=0))]
    return (torch.maximum(*sums).amax(1) / ROOM).clamp(min=1)


def by_output(layer: Affine, weight: Tensor) -> Tensor:
    """A layer's weight, (outputs, taps, channels that an output reads)."""
    if isinstance(layer, TRANSPOSED):
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(2).movedim(1, 2) if weight.dim() > 2 else weight[:, None]


def of_group(layer: Affine, values: Tensor, outputs: int) -> Tensor:
    """Values of all input channels as those of the channels that each output reads, (outputs, channels)."""
    groups = getattr(layer, "groups", 1)
    return values.unflatten(0, (groups, -1)).repeat_interleave(outputs // groups, 0)
