"""The building blocks that backbones, necks and heads here share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Little of a picture is text: its probability starts near 0.12 (Lin et al. 2017, "Focal loss", section 3.3), not at a half.
TEXT_PRIOR_LOGIT = -2.0


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    *,
    stride: int | tuple[int, int] = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution without bias, batch norm and, unless None, an activation; padded so that stride 1 keeps the size."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excite (Hu et al. 2018) with MobileNetV3's hard sigmoid; names as in torchvision's `SqueezeExcitation`.

    The hard sigmoid is torch's, x / 6 + 1 / 2. Weights that were trained with another slope fit when `fc2` is scaled by six times it.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(torch.relu(self.fc1(self.avgpool(x))))
        return x * nn.functional.hardsigmoid(gate)


class Uncoupled(nn.Module):
    """A layer whose output channels must not be pruned, and are not coupled to the channels that they are multiplied with or added to.

    Example: spatial attention gives one map that weighs all channels. Pruning does not follow channels through this layer and keeps all
    output channels inside of it. Its input channels may be pruned.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def assembled(
    network: Callable[..., nn.Module], backbone: Callable[[], nn.Module], neck: Callable[[Sequence[int]], nn.Module], *settings: Any
) -> nn.Module:
    """`network(backbone, neck, *settings)` with fresh weights; the neck is made for the channels of the backbone's feature maps."""
    features = backbone()
    return network(features, neck(features.channels), *settings)


def initialise(module: nn.Module) -> None:
    """He initialisation (He et al. 2015, fan-out) of every convolution; batch norms start as the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
