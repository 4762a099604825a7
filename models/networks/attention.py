"""What networks with an attention decoder share: its steps, the weighing of features, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from compress.models.attention import PADDING
from compress.models.cells import GRUCell
from compress.models.layers import Uncoupled, Unrolled

START = -3  # place of the start among the classes: the last three are start, end and unknown
Targets = Mapping[str, Tensor]


def attention_loss(outputs: Targets, targets: Targets, smoothing: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    """The :func:`character_loss` of an algorithm with an attention decoder.

    outputs: `logits`, (B, L, classes). targets: the batched arrays of :func:`compress.models.attention.attention_targets`.
    """
    loss = character_loss(outputs["logits"], targets["characters"], smoothing)
    return loss, {"characters": loss.detach()}


def character_loss(logits: Tensor, characters: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy, the mean over all characters and ends of a batch; 0 for a batch without any.

    logits: (B, L, classes). characters: (B, L) int64; `PADDING` is left out. smoothing: share of the truth that is spread over all classes
    (Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7).
    """
    each = cross_entropy(
        logits.float().flatten(0, 1), characters.flatten(), ignore_index=PADDING, reduction="sum", label_smoothing=smoothing
    )
    return each / (characters != PADDING).sum().clamp(min=1)


class Attention(nn.Module):
    """Additive attention (Bahdanau et al. 2015, section 3.1): which of N places to look at, by the state of a decoder.

    keys: (B, N, d), what the places are looked for by. state: (B, hidden). Gives (B, N) weights whose sum is 1.
    """

    def __init__(self, hidden: int, keys: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, keys, bias=False)
        self.score = Uncoupled(nn.Linear(keys, 1, bias=False))  # one number for a place, however many channels it weighs

    def forward(self, keys: Tensor, state: Tensor) -> Tensor:
        return self.score((keys + self.query(state).unsqueeze(1)).tanh()).squeeze(2).softmax(1)


def glimpse(weights: Tensor, values: Tensor) -> Tensor:
    """(B, C): the sum of (B, N, C) values, by (B, N) weights."""
    return (weights.unsqueeze(1) @ values).squeeze(1)


class GRUDecoder(Unrolled):
    """One character after another, each by what was looked at and by the one before (Baek et al. 2019, "What Is Wrong With Scene Text
    Recognition Model Comparisons?", supplement; Shi et al. 2018, "ASTER", section 3.2.2).

    `forward` takes (B, N, C) values, (B, N, keys) keys and, where the decoder is shown what to write, (B, steps) classes; it gives
    (B, steps, classes) logits.
    """

    def __init__(self, channels: int, keys: int, hidden: int, classes: int, steps: int) -> None:
        super().__init__(steps)
        self.attention = Attention(hidden, keys)
        self.embedding = nn.Embedding(classes, hidden)
        self.cell = GRUCell(channels + hidden, hidden)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, values: Tensor, keys: Tensor, shown: Tensor | None = None) -> Tensor:
        def step(last: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            seen = glimpse(self.attention(keys, state), values)
            state = self.cell(torch.cat([seen, self.embedding(last)], 1), state)
            return self.classifier(state), state

        return spelt(step, starts(values, self.embedding), self.cell.start(values), self.steps, shown)


Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


def spelt(step: Step, first: Tensor, state: Any, steps: int, shown: Tensor | None) -> Tensor:
    """(B, steps, classes) logits, of a number of steps that does not depend on what is read, as exported files need it.

    step: classes (B,) of the last character and a state, to logits (B, classes) of the next one and the next state. first: the classes
    that the first step is given. shown: (B, at least `steps`) classes, of which each step is given the one before; None: the likeliest.
    """
    last, given = first, []
    for place in range(steps):
        logits, state = step(last, state)
        given.append(logits)
        last = logits.argmax(1) if shown is None else shown[:, place]
    return torch.stack(given, 1)


def starts(values: Tensor, embedding: nn.Embedding) -> Tensor:
    """(B,) classes: the start of each text. The embedding knows how many classes there are, also when some have been taken out."""
    return values.new_full((values.shape[0],), embedding.num_embeddings + START, dtype=torch.int64)


def shown_by(targets: Targets | None, first: Tensor, steps: int) -> Tensor:
    """(B, steps) classes that a decoder is shown in training: the true ones, or, where there are none, nothing but starts.

    targets: None, or those of a student with other targets, where the decoder is a teacher's.
    """
    characters = true_characters(targets, steps)
    return first.unsqueeze(1).expand(-1, steps) if characters is None else characters


def true_characters(targets: Targets | None, steps: int) -> Tensor | None:
    """What :func:`compress.models.attention.attention_targets` gave for a decoder of so many steps, where it did."""
    characters = None if targets is None else targets.get("characters")
    return characters if characters is not None and characters.shape[1] == steps else None


def answers(logits: Tensor, targets: Targets | None, training: bool) -> dict[str, Tensor]:
    """What such a network gives: `probability`, (B, L, classes); in training `logits` too.

    Logits behind the end of a shown text are 0: nothing teaches a network what to give there, so there is nothing to copy from it.
    """
    if not training:
        return {"probability": logits.softmax(2)}
    logits = within_texts(logits, targets)
    return {"logits": logits, "probability": logits.softmax(2)}


def within_texts(logits: Tensor, targets: Targets | None) -> Tensor:
    """(B, L, classes) logits with zeros behind the end of a shown text."""
    characters = true_characters(targets, logits.shape[1])
    return logits if characters is None else logits * (characters != PADDING).unsqueeze(2)
