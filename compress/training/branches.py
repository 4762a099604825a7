"""Convolutions that are trained as a sum of parallel ones and kept as one (Ding et al. 2021, "RepVGG: Making VGG-style ConvNets Great
Again", section 3; with a learned scale and shift behind the sum, as PP-LCNetV3 has it).

Layers with batch norm are linear at inference, and so is their sum: while a network trains, `Branches` stand where its architecture has
`Branching` layers; every checkpoint, and so pruning, quantization and export, has the one convolution that gives the same.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from compress.checkpoint import channels_last
from compress.errors import CompressError
from compress.models.layers import Branching, running_statistics


class Branches(nn.Module):
    """The sum of `count` convolutions, of a 1x1 one where the kernel is larger and of the input where it has the output's shape, each with
    batch norm; then one scale and one shift.

    It starts as the layer that it is made of: that is the first of the convolutions, and the norms of all others start at zero.
    `seen` keeps mean and variance of the sum, which the one convolution's batch norm is to have.
    """

    pointwise: Any
    identity: Any

    def __init__(self, layer: Branching, count: int) -> None:
        super().__init__()
        conv, norm = parts(layer)
        outputs, inputs = conv.out_channels, conv.in_channels
        self.convolutions = nn.ModuleList([layer, *(silent(conv, norm, conv.kernel_size[0]) for _ in range(count - 1))])
        self.pointwise = silent(conv, norm, 1) if conv.kernel_size[0] > 1 else None
        self.identity = zeroed(norm) if inputs == outputs and conv.stride == (1, 1) else None
        self.scale = nn.Parameter(torch.ones_like(norm.weight[:1]))
        self.shift = nn.Parameter(torch.zeros_like(norm.weight[:1]))
        self.seen = nn.BatchNorm2d(outputs, eps=norm.eps, momentum=norm.momentum, affine=False).to(norm.weight.device)
        mean, variance = running_statistics(self.seen)
        mean.copy_(norm.bias.detach())
        variance.copy_(norm.weight.detach().square())

    def forward(self, x: Tensor) -> Tensor:
        total: Any = sum(layer(x) for layer in self.convolutions)
        if self.pointwise is not None:
            total = total + self.pointwise(x)
        if self.identity is not None:
            total = total + self.identity(x)
        total = self.scale * total + self.shift
        if self.seen.training:
            with torch.no_grad():
                self.seen(total)
        return total


def parts(layer: Any) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """The convolution and the batch norm of a :class:`Branching`."""
    return layer[0], layer[1]


def silent(conv: Any, norm: nn.BatchNorm2d, kernel: int) -> Branching:
    """A convolution like `conv` with another kernel and fresh weights, and a norm that lets nothing through as yet."""
    like = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, conv.stride, kernel // 2, groups=conv.groups, bias=False)
    nn.init.kaiming_normal_(like.weight, mode="fan_out", nonlinearity="relu")
    return Branching(like.to(conv.weight.device), zeroed(norm))


def zeroed(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A norm of as many channels that gives zero."""
    fresh = nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum).to(norm.weight.device)
    nn.init.zeros_(fresh.weight)
    return fresh


def split(network: nn.Module, count: int, seed: int) -> None:
    """Put `Branches` of `count` convolutions where `network` has `Branching` layers, in place; 1 leaves it as it is.

    seed: of the fresh weights.
    Raises CompressError for a network without such layers.
    """
    if count == 1:
        return
    check_can_be_split(network)
    torch.manual_seed(seed)
    for name, layer in branching(network).items():
        network.set_submodule(name, Branches(layer, count))
    channels_last(network)


def check_can_be_split(network: nn.Module) -> None:
    """Refuse a network without layers that can be trained as branches."""
    if not branching(network):
        raise CompressError(
            "branches: the network has no layers that are trained as branches, or their batch norms are folded; leave it out, or take "
            "one of the backbones lcnet_v3 and lcnet_v4."
        )


def branching(network: nn.Module) -> dict[str, Branching]:
    """The layers that :func:`split` replaces, by their names."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, Branching) and isinstance(layer[1], nn.BatchNorm2d)}


def merged(network: nn.Module) -> nn.Module:
    """A copy of `network` with one convolution and batch norm in place of each sum of branches; itself where there is none."""
    names = [name for name, layer in network.named_modules() if isinstance(layer, Branches)]
    if not names:
        return network
    result = copy.deepcopy(network)
    for name in names:
        layer = result.get_submodule(name)
        assert isinstance(layer, Branches)
        result.set_submodule(name, one_convolution(layer))
    return channels_last(result)


@torch.no_grad()
def one_convolution(layer: Branches) -> Branching:
    """The convolution and batch norm that give what the branches give at inference; computed in float64 and rounded once.

    With weight W and bias b of the sum, and its mean m and variance v in training, the norm has the statistics m - b and v, the scale
    sqrt(v + eps) and the shift m: W x + b at inference, and about that in further training.
    """
    conv, norm = parts(layer.convolutions[0])
    weight, bias = (
        conv.weight.new_zeros(conv.weight.shape, dtype=torch.float64),
        norm.weight.new_zeros(len(norm.weight), dtype=torch.float64),
    )
    middle = conv.kernel_size[0] // 2
    for branch in map(parts, layer.convolutions):
        scale, shift = affine(branch[1])
        weight += branch[0].weight.double() * scale[:, None, None, None]
        bias += shift
    if layer.pointwise is not None:
        scale, shift = affine(layer.pointwise[1])
        weight[:, :, middle, middle] += layer.pointwise[0].weight[:, :, 0, 0].double() * scale[:, None]
        bias += shift
    if layer.identity is not None:
        scale, shift = affine(layer.identity)
        rows = torch.arange(len(weight), device=weight.device)
        weight[rows, rows % weight.shape[1], middle, middle] += scale
        bias += shift
    weight, bias = weight * layer.scale, bias * layer.scale + layer.shift
    mean, variance = (statistic.double() for statistic in running_statistics(layer.seen))
    conv.weight.copy_(weight)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean)
    for statistic, value in zip(running_statistics(norm), (mean - bias, variance), strict=True):
        statistic.copy_(value)
    return Branching(conv, norm)


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a norm at inference, in float64."""
    mean, variance = running_statistics(norm)
    scale = norm.weight.double() * (variance.double() + norm.eps).rsqrt()
    return scale, norm.bias.double() - mean.double() * scale
