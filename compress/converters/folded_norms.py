"""Batch norms that an export has folded into the convolutions before them, put back, so that the network is trained and pruned with them.

What a fold loses is which part of the product was the norm's. Any statistics m and v will do if the norm's scale is sqrt(v + eps) and its
shift m plus the bias of the folded convolution: the two then compute what the one did. Here they are the statistics of images that the
network is shown. So the scale of a channel says how much it varies, as a trained norm's does.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from compress.converters.names import Tensors


def with_norms(network: nn.Module, weights: Tensors) -> Tensors:
    """`weights` of folded convolutions, with norms after them that add the biases and do nothing else.

    A norm belongs to the convolution that is one place before it in the same `nn.Sequential`.
    """
    found = dict(weights)
    for name, norm in norms_of(network):
        convolution = layer_before(name)
        if f"{convolution}.bias" in weights and f"{name}.weight" not in weights:
            bias = found.pop(f"{convolution}.bias")
            if network.get_submodule(convolution).bias is not None:
                found[f"{convolution}.bias"] = np.zeros_like(bias)
            ones = np.ones_like(bias)
            found |= {f"{name}.weight": ones, f"{name}.bias": bias}
            found |= {f"{name}.running_mean": np.zeros_like(bias), f"{name}.running_var": ones - np.float32(norm.eps)}
    return found


def norms_of(network: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    """Names and norms, in the network's order."""
    return [(name, module) for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]


def layer_before(name: str) -> str:
    """The name of the layer one place before in an `nn.Sequential`."""
    parent, _, place = name.rpartition(".")
    return f"{parent}.{int(place) - 1}"


@torch.no_grad()
def take_statistics(network: nn.Module, images: Iterable[Tensor]) -> None:
    """Give every norm of :func:`with_norms` the mean and the variance of its input on normalised (1, 3, H, W) `images`, in place.

    Scale and shift change with them, so that the network computes what it did.
    """
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for _, norm in norms_of(network)}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double()
        count = torch.full_like(norm.running_mean, values[:, 0].numel(), dtype=torch.float64)
        sums[norm] += torch.stack([count, values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])

    handles = [norm.register_forward_pre_hook(add) for norm in sums]
    try:
        network.eval()
        for image in images:
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    for norm, (count, total, squares) in sums.items():
        mean = total / count
        variance = (squares / count - mean**2).clamp(min=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((norm.running_var.double() + norm.eps).sqrt())
        norm.bias.add_(norm.running_mean)
