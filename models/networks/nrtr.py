"""NRTR's network (Sheng et al. 2019, figure 1); its decoder is that of a Transformer (Vaswani et al. 2017)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from compress.models.layers import KeptWidth, Unrolled
from compress.models.multihead import Attention, CrossAttention
from compress.models.networks.attention import Targets, answers, shown_by, starts
from compress.models.sequences.svtr import steps_of


class Positions(nn.Module):
    """Sines and cosines of the place of a step (Vaswani et al. 2017, section 3.5), for any number of steps: (steps, channels)."""

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 10_000 ** -(torch.arange(0, channels, 2) / channels), persistent=False)

    def forward(self, steps: int) -> Tensor:
        angles = torch.arange(steps, device=self.frequencies.device).unsqueeze(1) * self.frequencies
        return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


class FeedForward(nn.Sequential):
    """Two linear layers. The channels of the steps stay, as positions have been added to them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(nn.Linear(channels, hidden), nn.ReLU(), KeptWidth(nn.Linear(hidden, channels)))


class EncoderBlock(nn.Module):
    """Self-attention and two linear layers, each beside a shortcut and before a layer norm, as in both papers."""

    def __init__(self, channels: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mixer, self.norm1 = Attention(channels, heads), nn.LayerNorm(channels)
        self.feed, self.norm2 = FeedForward(channels, hidden), nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.mixer(x)))
        return self.norm2(x + self.dropout(self.feed(x)))


class DecoderBlock(nn.Module):
    """Attention to the characters so far, attention to the places of the line, and two linear layers."""

    def __init__(self, channels: int, places: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mixer, self.norm1 = Attention(channels, heads), nn.LayerNorm(channels)
        self.look, self.norm2 = CrossAttention(channels, places, heads), nn.LayerNorm(channels)
        self.feed, self.norm3 = FeedForward(channels, hidden), nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, places: tuple[Tensor, ...], before: tuple[Tensor, ...], hidden: Tensor | None) -> tuple[Tensor, ...]:
        """The (B, T, C) steps after the block, and the keys and values of all steps so far.

        places: keys and values of the line. before: keys and values of the steps before these; none at the start. hidden: what no step may
        see of these.
        """
        query, *known = self.mixer.split(self.mixer.qkv(x), 3)
        key, value = (torch.cat(pair, 2) for pair in zip(before, known, strict=True)) if before else known
        x = self.norm1(x + self.dropout(self.mixer.mixed(query, key, value, hidden)))
        x = self.norm2(x + self.dropout(self.look(x, *places)))
        return self.norm3(x + self.dropout(self.feed(x))), key, value


class Decoder(Unrolled):
    """One character after another, each by all before it and by what it looks at.

    `forward` takes (B, N, places) values of the line and, where the decoder is shown what to write, (B, at least `steps`) classes; it gives
    (B, steps, classes) logits. Shown a text it computes all steps at once. Else it takes one after another and keeps the keys and values
    of those before: their number does not depend on what is read, as exported files need it.
    """

    def __init__(self, places: int, classes: int, steps: int, channels: int, heads: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__(steps)
        self.embedding = nn.Embedding(classes, channels)
        self.positions = Positions(channels)
        self.blocks = nn.ModuleList(DecoderBlock(channels, places, heads, hidden, dropout) for _ in range(layers))
        self.classifier = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, values: Tensor, shown: Tensor | None = None) -> Tensor:
        places = [cast(DecoderBlock, block).look.looked_up(values) for block in self.blocks]
        known: list[tuple[Tensor, ...]] = [()] * len(self.blocks)
        last = starts(values, self.embedding).unsqueeze(1)
        if shown is not None:
            given = torch.cat([last, shown[:, : self.steps - 1]], 1)
            later = torch.full((self.steps, self.steps), -torch.inf, device=values.device).triu(1)
            return self.read(given, 0, places, known, later)[0]
        found = []
        for place in range(self.steps):
            logits, known = self.read(last, place, places, known, None)
            found.append(logits)
            last = logits.argmax(2)
        return torch.cat(found, 1)

    def read(
        self, classes: Tensor, first: int, places: list[tuple[Tensor, ...]], known: list[tuple[Tensor, ...]], hidden: Tensor | None
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """(B, T, classes) logits of the steps from place `first` on, each given one of (B, T) `classes`, and what is known after them."""
        x = self.embedding(classes) * self.embedding.embedding_dim**0.5
        x = x + self.positions(first + classes.shape[1])[first:]
        after = []
        for block, looked_up, before in zip(self.blocks, places, known, strict=True):
            x, *steps = block(x, looked_up, before, hidden)
            after.append(tuple(steps))
        return self.classifier(x), after


class NRTR(nn.Module):
    """Two convolutions, the encoder over the columns, and the decoder.

    `forward` takes (B, 3, H, W) lines and, in training, the batched targets, and gives
    :func:`compress.models.networks.attention.answers`.
    """

    def __init__(
        self, classes: int, steps: int, rows: int, channels: int, heads: int, hidden: int, encoder: int, decoder: int, dropout: float
    ) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*convolution(3, 32), *convolution(32, 64))
        self.columns = nn.Conv2d(64, channels, (rows, 1))
        self.positions = Positions(channels)
        self.encoder = nn.Sequential(*(EncoderBlock(channels, heads, hidden, dropout) for _ in range(encoder)))
        self.decoder = Decoder(channels, classes, steps, channels, heads, hidden, decoder, dropout)
        initialise(self)

    def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor]:
        columns = steps_of(self.columns(self.backbone(images)))
        values = self.encoder(columns + self.positions(columns.shape[1]))
        shown = shown_by(targets, starts(values, self.decoder.embedding), self.decoder.steps) if self.training else None
        return answers(self.decoder(values, shown), targets, self.training)


def convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """3x3 with stride 2, ReLU and batch norm, in NRTR's order (figure 2)."""
    return nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(outputs)


def initialise(network: nn.Module) -> None:
    """Glorot's for linear layers (Glorot and Bengio 2010), and characters of a length of about 1, which is what positions have."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, std=layer.embedding_dim**-0.5)


def nrtr_network(classes: int, steps: int, rows: int, *sizes: int) -> nn.Module:
    """An :class:`NRTR` with fresh weights."""
    return NRTR(classes, steps, rows, *sizes)
