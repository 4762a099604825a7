"""The one building block that every backbone, neck and head here shares."""

from __future__ import annotations

from torch import nn

# Little of a picture is text: its probability starts near 0.12 (Lin et al. 2017, "Focal loss", section 3.3), not at a half.
TEXT_PRIOR_LOGIT = -2.0


def conv_bn(
    inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, activation: type[nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    """Convolution without bias, batch norm and, unless None, an activation; padded so that stride 1 keeps the size."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


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
