"""The building blocks that backbones, necks and heads here share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.models.registry import BACKBONES, NECKS, configured

# Little of an image is text: its probability starts near 0.12 (Lin et al. 2017, "Focal loss", section 3.3), not at a half.
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


class Branching(nn.Sequential):
    """A convolution without bias and its batch norm, which a network may be trained with in several parallel copies: see stage `train`."""


def branching_conv_bn(inputs: int, outputs: int, kernel: int = 1, *, stride: int | tuple[int, int] = 1, groups: int = 1) -> Branching:
    """:func:`conv_bn` without an activation, as :class:`Branching`."""
    return Branching(*conv_bn(inputs, outputs, kernel, stride=stride, groups=groups, activation=None))


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


# A network from a backbone's features to one map of features: an nn.Module with the attribute `channels`, which torch's types do not know.
Neck = Any


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


class KeptWidth(nn.Module):
    """A layer whose output channels must not be pruned, nor those that they are added to.

    Example: to the steps of a Transformer positions are added, which are no weights and cannot lose channels.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class TrainingOnly(nn.Module):
    """A part of a network that runs in training alone and is never shipped: it counts in no size, and its widths stay."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *given: Any) -> Tensor:
        return self.layer(*given)


class Centres(nn.Module):
    """A learned centre for each class, to which the features of its steps are drawn (Wen et al. 2016, "A Discriminative Feature Learning
    Approach for Deep Face Recognition", equation 2, without its half, as in PaddleOCR).

    `forward` takes (B, T, channels) steps and their (B, T, classes) logits, and gives the squared distance of every step from the centre of
    its likeliest class, (B, T). Pruning sees what reads the steps, and removes the same channels of all centres.
    Centres start at zero.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.places = nn.Embedding.from_pretrained(torch.zeros(classes, channels), freeze=False)

    def forward(self, steps: Tensor, logits: Tensor) -> Tensor:
        # The table is no layer that is called: its channels would look like some that are subtracted, and LSTMs would lose theirs together.
        near = nn.functional.embedding(logits.argmax(2), self.places.weight)
        return (steps.to(near.dtype) - near).square().sum(2)


class Detached(nn.Module):
    """The same values, through which no gradient passes. Pruning follows channels through it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class Unrolled(nn.Module):
    """A module that runs its layers once for each of `steps` steps, of which each reads what the one before gave.

    Exported files have so many copies of its operators, and its weights once. int8 networks compute it in float. Pruning follows channels
    through two steps of it, which show all that a step can read of another.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps


def assembled(network: Callable[..., nn.Module], backbone: Mapping[str, Any], neck: Mapping[str, Any], *settings: Any) -> nn.Module:
    """`network(backbone, neck, *settings)` with fresh weights; the neck is made for the channels of the backbone's feature maps.

    backbone, neck: `name` and keywords. Raises ValueError for keywords that these do not have, and for wrong values.
    """
    new_backbone, new_neck = configured(BACKBONES, backbone, "model.backbone"), configured(NECKS, neck, "model.neck")
    features = new_backbone()
    return network(features, new_neck(features.channels), *settings)


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


def running_statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Running mean and variance, the buffers themselves. Raises ValueError for a norm without."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("the network has a batch norm without running statistics")
    return norm.running_mean, norm.running_var


def start_at_prior(layer: Any) -> None:
    """Let a convolution that gives the logits of text begin with the share of text in an image, by its bias."""
    nn.init.constant_(layer.bias, TEXT_PRIOR_LOGIT)
