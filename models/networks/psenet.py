"""PSENet's network and loss (Wang et al. 2019): sections 3.2 and 3.5. Symbols are those of `compress.models.psenet`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from compress.models.layers import Neck, assembled, conv_bn, initialise, start_at_prior
from compress.models.losses import dice, hard_examples
from compress.models.psenet import Stride


class PSENet(nn.Module):
    """Backbone, neck, a 3x3 convolution to a quarter of the neck's width and a 1x1 convolution to the n maps.

    `forward` takes (B, 3, H, W) and gives `kernels`, probabilities S_1 to S_n in 0..1: (B, n, H, W) in training, (B, n, H / stride,
    W / stride) otherwise.
    """

    def __init__(self, backbone: nn.Module, neck: Neck, kernels: int, stride: Stride) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.fuse = conv_bn(neck.channels, neck.channels // 4, 3)
        self.maps = nn.Conv2d(neck.channels // 4, kernels, 1)
        self.stride = stride
        initialise(self.fuse)
        initialise(self.maps)
        start_at_prior(self.maps)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.maps(self.fuse(self.neck(self.backbone(images))))
        return {"kernels": enlarged(logits, 1 if self.training else self.stride).sigmoid()}


def enlarged(maps: Tensor, stride: Stride) -> Tensor:
    """Maps at stride 4, brought to another one."""
    return maps if stride == 4 else interpolate(maps, scale_factor=4.0 / stride, mode="bilinear", align_corners=False)


def pse_network(backbone: Mapping[str, Any], neck: Mapping[str, Any], kernels: int, stride: Stride) -> nn.Module:
    """A :class:`PSENet` with fresh weights."""
    return assembled(PSENet, backbone, neck, kernels, stride)


def pse_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], text_weight: float = 0.7) -> tuple[Tensor, dict[str, Tensor]]:
    """Equations 3 to 6: lambda L_c + (1 - lambda) L_s, each the mean of the images' dice losses.

    outputs, targets: `kernels`, (B, n, H, W), of the network and of :func:`pse_targets`, and `mask`, of any number type.
    """
    maps, labels, mask = outputs["kernels"].float(), targets["kernels"].float(), targets["mask"].float()
    text, text_labels = maps[:, -1:], labels[:, -1:]
    likely = (text.detach() >= 0.5) * mask  # W: what the network does not take for text says nothing about kernels
    parts = {
        "text": dice(text, text_labels, hard_examples(text, text_labels, mask)).mean(),
        "kernels": dice(maps[:, :-1], labels[:, :-1], likely).mean(),
    }
    total = text_weight * parts["text"] + (1 - text_weight) * parts["kernels"]
    return total, {name: part.detach() for name, part in parts.items()}
