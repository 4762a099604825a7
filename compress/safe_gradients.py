"""Strided 1x1 convolutions that train rightly on CPUs.

The gradient of their weight, of fewer than 16 input channels that lie last in memory, makes torch 2.13's oneDNN write beyond a buffer:
processes crash, wait for ever, or train wrongly (https://github.com/uxlfoundation/oneDNN/issues/6035). Narrow or pruned ResNets have them
as shortcuts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SAFE = 16  # input channels from which on oneDNN is right


class Strided1x1(nn.Conv2d):
    """A 1x1 convolution that, where oneDNN would be wrong, takes the pixels that it reads first: the same sum at stride 1."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.shape[1] >= SAFE or x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        rows, columns = self.stride
        return nn.functional.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)


def make_gradients_safe(network: nn.Module) -> None:
    """Make every plain strided 1x1 convolution of `network` a :class:`Strided1x1`, in place; names, weights and outputs stay."""
    for layer in network.modules():
        if type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.groups == 1 and unpadded(layer):
            layer.__class__ = Strided1x1


def unpadded(layer: nn.Conv2d) -> bool:
    """Whether a convolution adds no pixels around its input; of a 1x1 one neither `same` nor `valid` does."""
    return isinstance(layer.padding, str) or not any(layer.padding)
