"""No sequence model: each step is classified by its own column of features."""

from __future__ import annotations

from torch import Tensor, nn


def steps_of(x: Tensor) -> Tensor:
    """(B, C, 1, T) features as (B, T, C) steps. Not by `squeeze`, which ONNX writes as a branch where the height of an image is open."""
    return x.mean(2).transpose(1, 2)


class Columns(nn.Module):
    """(B, C, 1, T) features as (B, T, C) steps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return steps_of(x)


def none(channels: int) -> Columns:
    """Steps of `channels` features, as the backbone gives them."""
    return Columns(channels)
