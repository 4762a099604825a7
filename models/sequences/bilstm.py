"""Bidirectional LSTMs over the columns of a line (Shi et al. 2017, "An End-to-End Trainable Neural Network for Image-based Sequence
Recognition", section 2.2).

The two directions are layers of their own, so that each can lose other hidden channels than the other.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.models.contract import Width
from compress.models.sequences.none import Columns

Layers = Annotated[int, Field(ge=1, le=8)]


class BiLSTM(nn.Module):
    """One LSTM from the left and one from the right: (B, T, inputs) to (B, T, 2 hidden), those from the left first."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(inputs, hidden, batch_first=True)
        self.backwards = nn.LSTM(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        left, _ = self.forwards(x)
        right, _ = self.backwards(x.flip(1))
        return torch.cat([left, right.flip(1)], -1)  # not 2, by which torch-pruning would not know the channels


class BiLSTMs(nn.Module):
    """Layers of :class:`BiLSTM`, each, where `linear`, with a linear layer of `hidden` outputs behind it."""

    def __init__(self, channels: int, hidden: int, layers: int, linear: bool) -> None:
        super().__init__()
        self.columns = Columns(channels)
        steps: list[nn.Module] = []
        for _ in range(layers):
            steps.append(BiLSTM(channels, hidden))
            channels = 2 * hidden
            if linear:
                steps.append(nn.Linear(channels, hidden))
                channels = hidden
        self.layers = nn.Sequential(*steps)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.columns(x))


def bilstm(channels: int, hidden: Width = 96, layers: Layers = 2, linear: bool = False) -> BiLSTMs:
    """Two layers of 96 hidden channels a direction, as in PP-OCR's CRNNs; 256 there with a ResNet.

    channels: of the features. linear: a linear layer behind each, as Shi et al. have it.
    """
    return BiLSTMs(channels, hidden, layers, linear)
