"""No sequence model: each step is classified by its own column of features."""

from __future__ import annotations

from torch import Tensor, nn


class Columns(nn.Module):
    """(B, C, 1, T) features as (B, T, C) steps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(2).transpose(1, 2)


def none(channels: int) -> Columns:
    """Steps of `channels` features, as the backbone gives them."""
    return Columns(channels)
