"""SAR's network (Li et al. 2019, figure 2).

The paper leaves the part of a line that is padding out of its attention and reads the encoder's state at the last column that is none.
Here lines are padded with the mean of the input, which the network can tell from text by itself, and all columns count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.cells import LSTMCell, State
from compress.models.layers import Uncoupled, Unrolled
from compress.models.networks.attention import Attention, Targets, answers, glimpse, shown_by, spelt, starts
from compress.models.registry import SAR_BACKBONES, configured


class Encoder(nn.Module):
    """Two LSTMs over the highest values of the columns (section 3.2): (B, C, H, W) to (B, outputs), what the last step gives.

    What leaves it is the first thing that the decoder reads, in the place of a character: so it has as many channels as those, always.
    """

    def __init__(self, channels: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.LSTM(channels, hidden, batch_first=True)
        self.second = nn.LSTM(hidden, hidden, batch_first=True)
        self.linear = Uncoupled(nn.Linear(hidden, outputs))

    def forward(self, features: Tensor) -> Tensor:
        steps, _ = self.first(features.amax(2).transpose(1, 2))
        steps, _ = self.second(steps)
        return self.linear(steps[:, -1])


class Decoder(Unrolled):
    """Two LSTM layers, whose state says where in the map to look, and what is seen there beside it (section 3.3).

    `forward` takes the (B, hidden) encoding of the line, (B, N, C) values and (B, N, keys) keys of all places of the map and, where the
    decoder is shown what to write, (B, steps) classes; it gives (B, steps, classes) logits.
    """

    def __init__(self, channels: int, keys: int, hidden: int, classes: int, steps: int) -> None:
        super().__init__(steps)
        self.embedding = nn.Embedding(classes, hidden)
        self.first = LSTMCell(hidden, hidden)
        self.second = LSTMCell(hidden, hidden)
        self.attention = Attention(hidden, keys)
        self.classifier = nn.Linear(hidden + channels, classes)

    def forward(self, encoding: Tensor, values: Tensor, keys: Tensor, shown: Tensor | None = None) -> Tensor:
        def read(x: Tensor, state: tuple[State, State]) -> tuple[State, State]:
            first = self.first(x, state[0])
            return first, self.second(first[0], state[1])

        def step(last: Tensor, state: tuple[State, State]) -> tuple[Tensor, tuple[State, State]]:
            state = read(self.embedding(last), state)
            seen = glimpse(self.attention(keys, state[1][0]), values)
            return self.classifier(torch.cat([state[1][0], seen], 1)), state

        state = read(encoding, (self.first.start(encoding), self.second.start(encoding)))
        return spelt(step, starts(values, self.embedding), state, self.steps, shown)


class SAR(nn.Module):
    """Backbone, encoder and decoder.

    `forward` takes (B, 3, H, W) lines and, in training, the batched targets, and gives
    :func:`compress.models.networks.attention.answers`.
    """

    def __init__(self, backbone: Any, classes: int, hidden: int, keys: int, steps: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.encoder = Encoder(backbone.channels, hidden, hidden)
        self.keys = nn.Conv2d(backbone.channels, keys, 3, padding=1)
        self.decoder = Decoder(backbone.channels, keys, hidden, classes, steps)

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        features = self.backbone(images)
        values, keys = (found.flatten(2).transpose(1, 2) for found in (features, self.keys(features)))
        shown = shown_by(targets, starts(values, self.decoder.embedding), self.decoder.steps) if self.training else None
        return answers(self.decoder(self.encoder(features), values, keys, shown), targets, self.training)


def sar_network(backbone: Mapping[str, Any], classes: int, hidden: int, keys: int, steps: int) -> nn.Module:
    """A :class:`SAR` with fresh weights."""
    return SAR(configured(SAR_BACKBONES, backbone, "model.backbone")(), classes, hidden, keys, steps)
