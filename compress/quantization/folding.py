"""Folding batch norm into the layer before it, so that what is quantized and exported is one affine layer.

With running mean m, variance v, weight g and bias b (Ioffe & Szegedy 2015, algorithm 2), norm(conv(x)) is a convolution whose
output channels are scaled by s = g / sqrt(v + eps) and whose bias is (c - m) s + b, c being its bias before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compress.models.layers import running_statistics

Affine = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.Linear
AFFINE = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)


def fold_batch_norms(network: nn.Module, example: Tensor) -> list[str]:
    """Fold, in place, every batch norm that alone reads the output of one convolution, transposed convolution or linear layer.

    example: (B, 3, H, W) images of any content; one forward pass with all training maps finds who reads whose output. A norm
    that cannot be folded (its input has another reader, or either layer runs twice) stays. Norms become `nn.Identity`, so
    every other name is unchanged. Returns the names of the folded norms. The network's mode is kept.
    """
    names = {module: name for name, module in network.named_modules()}
    folded = []
    for layer, norm in foldable_pairs(network, example):
        fold_pair(layer, norm)
        network.set_submodule(names[norm], nn.Identity())
        folded.append(names[norm])
    return folded


def fold_like(network: nn.Module, names: Collection[str]) -> None:
    """Give a freshly built network the folded structure of a weights file, whose tensor names are `names`.

    Layers whose bias is in the file get one; norms of which nothing is in the file become `nn.Identity`.
    """
    present = {name.rpartition(".")[0] for name in names}
    for name, module in list(network.named_modules()):
        if isinstance(module, BatchNorm) and name not in present:
            network.set_submodule(name, nn.Identity())
        elif isinstance(module, AFFINE) and module.bias is None and f"{name}.bias" in names:
            module.bias = nn.Parameter(module.weight.new_zeros(output_channels(module)))


def output_channels(layer: Affine) -> int:
    """Output channels by the weight's shape: after pruning a layer's attributes may lag behind."""
    weight = layer.weight.shape
    return weight[1] * layer.groups if isinstance(layer, TRANSPOSED) else weight[0]


def by_channel(layer: nn.Module, values: Tensor) -> Tensor:
    """What a layer is given or gives, (channels, values)."""
    return values.movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)


class Readers(TorchDispatchMode):
    """Counts for every tensor how many operators read it; sees functional calls as well as modules."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        # A freed tensor's id may be given to the next one.
        self.alive: list[object] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        read = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        self.counts.update(id(tensor) for tensor in read)
        result = func(*args, **(kwargs or {}))
        self.alive += [*read, result]
        return result


@torch.no_grad()
def foldable_pairs(network: nn.Module, example: Tensor) -> list[tuple[Affine, BatchNorm]]:
    """Every (layer, norm) where the norm is the one reader of the layer's one output."""
    written: list[tuple[int, Affine]] = []
    consumed: list[tuple[int, BatchNorm]] = []
    handles = []
    for module in network.modules():
        if isinstance(module, AFFINE):
            handles.append(module.register_forward_hook(lambda layer, _, output: written.append((id(output), layer))))
        elif isinstance(module, BatchNorm) and module.running_var is not None:
            handles.append(module.register_forward_pre_hook(lambda norm, inputs: consumed.append((id(inputs[0]), norm))))
    modes = {module: module.training for module in network.modules()}
    network.eval()
    network.training = True  # all maps, while batch norm uses its running statistics
    try:
        with Readers() as readers:
            outputs = network(example)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    returned = {id(leaf) for leaf in tree_leaves(outputs)}
    calls: Counter[nn.Module] = Counter(module for _, module in (*written, *consumed))
    writers = dict(written)
    return [
        (writers[tensor], norm)
        for tensor, norm in consumed
        if tensor in writers and readers.counts[tensor] == 1 and tensor not in returned and calls[norm] == calls[writers[tensor]] == 1
    ]


@torch.no_grad()
def fold_pair(layer: Affine, norm: BatchNorm) -> None:
    """Scale and shift `layer` so that it does the work of both; computed in float64 and rounded once."""
    running_mean, running_var = running_statistics(norm)
    scale = (running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if layer.bias is not None:
        shift = shift + layer.bias.double() * scale
    weight = layer.weight.double()
    if isinstance(layer, TRANSPOSED):
        # (inputs, outputs / groups, ...): the output channel is spread over the group of the first axis and the second axis.
        grouped = weight.unflatten(0, (layer.groups, -1))
        factors = scale.reshape(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
        weight = (grouped * factors).flatten(0, 1)
    else:
        weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    layer.weight.copy_(weight)
    layer.bias = nn.Parameter(shift.to(layer.weight.dtype), requires_grad=layer.weight.requires_grad)
