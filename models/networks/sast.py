"""SAST's network and loss (Wang et al. 2019). Symbols are those of `compress.models.sast`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from compress.models.layers import Neck, assembled, conv_bn, initialise, start_at_prior
from compress.models.losses import dice
from compress.models.sast import MAPS, LossWeights


class SAST(nn.Module):
    """Backbone, neck, and for each map a branch of three convolutions and one that gives the map.

    `forward` takes (B, 3, H, W) and gives, in training and otherwise, `score`, (B, 1, H / 4, W / 4), a probability, and the offsets
    `border`, `tvo` and `tco` with 4, 8 and 2 channels.
    """

    def __init__(self, backbone: nn.Module, neck: Neck) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        width = neck.channels
        half = max(1, width // 2)
        self.branches = nn.ModuleDict(
            {name: nn.Sequential(conv_bn(width, half), conv_bn(half, half, 3), conv_bn(half, width)) for name in MAPS}
        )
        self.maps = nn.ModuleDict({name: nn.Conv2d(width, channels, 3, padding=1) for name, channels in MAPS.items()})
        initialise(self.branches)
        initialise(self.maps)
        start_at_prior(self.maps["score"])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.neck(self.backbone(images))
        maps = {name: self.maps[name](branch(features)) for name, branch in self.branches.items()}
        return {**maps, "score": maps["score"].sigmoid()}


def sast_network(backbone: Mapping[str, Any], neck: Mapping[str, Any]) -> nn.Module:
    """A :class:`SAST` with fresh weights."""
    return assembled(SAST, backbone, neck)


def sast_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """Training objective: dice on the centre lines of the whole batch; smooth L1 on the offsets of their labelled pixels, in heights of
    the word, those to the borders in halves of it.

    outputs: the maps of :class:`SAST`. targets: the batched maps of :func:`sast_targets`, of any number type.
    """
    score, mask, height = (targets[name].float() for name in ("score", "mask", "height"))
    labelled = score * mask

    def offset_loss(name: str, unit: Tensor) -> Tensor:
        apart = smooth_l1_loss(outputs[name].float(), targets[name].float(), reduction="none") / unit
        return (apart.mean(1, keepdim=True) * labelled).sum() / (labelled.sum() + 1e-6)

    parts = {
        "score": dice(*(maps.reshape(1, 1, -1, maps.shape[-1]) for maps in (outputs["score"].float(), score, mask))).mean(),
        "border": offset_loss("border", height / 2),
        "tvo": offset_loss("tvo", height),
        "tco": offset_loss("tco", height),
    }
    total = sum(getattr(weights, name) * part for name, part in parts.items())
    return total, {name: part.detach() for name, part in parts.items()}
