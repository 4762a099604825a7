"""Attention decoders (Bahdanau et al. 2015, "Neural Machine Translation by Jointly Learning to Align and Translate"): what recognisers that
give one character after another share.

Targets and greedy decoding in numpy; the loss is in `compress.models.networks.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from compress.models.alphabet import BLANK, Alphabet
from compress.models.contract import Algorithm, Input, Sample, Transcription
from compress.models.ctc import Greedy, transcriptions
from compress.models.registry import of_network

if TYPE_CHECKING:
    from torch import nn

# Characters of the longest text that a decoder can give, and the share of the truth that label smoothing takes from the true character,
# as a recipe may give them.
Longest = Annotated[int, Field(ge=1, le=200)]
Smoothing = Annotated[float, Field(ge=0, lt=1)]
PADDING = BLANK  # no decoder is asked for the blank


def attention_recogniser(
    network: Callable[[], nn.Module], alphabet: Alphabet, wanted: Input, longest: int, smoothing: float = 0.0
) -> Algorithm:
    """A network of `backbone` and an attention `decoder` of `longest` + 1 steps as an :class:`Algorithm` of task "recognition".

    wanted: its input. smoothing: of labels, in the loss.
    """
    return Algorithm(
        task="recognition",
        network=network,
        targets=partial(attention_targets, alphabet=alphabet, longest=longest),
        loss=partial(of_network, "attention", "attention_loss", smoothing=smoothing),
        decode=partial(decoded, alphabet=alphabet),
        settings=Greedy,
        tunable=MappingProxyType({}),
        copies=MappingProxyType({"logits": "kl"}),
        features=("backbone",),
        kept_layers=("decoder.classifier",),
        alphabet=alphabet,
        input=wanted,
        reads_targets=True,
        longest=longest,
    )


def attention_targets(sample: Sample, alphabet: Alphabet, longest: int) -> dict[str, np.ndarray]:
    """`characters`, (longest + 1,) int64: the classes of the characters, the end, then `PADDING`, which is no part of the loss.

    Characters that are not in the alphabet are `alphabet.unknown`. A text of more than `longest` characters has no part in the loss.
    """
    classes = [alphabet.numbers.get(character, alphabet.unknown) for character in sample.truth.text]
    characters = np.full(longest + 1, PADDING, np.int64)
    if len(classes) <= longest:
        characters[: len(classes) + 1] = [*classes, alphabet.end]
    return {"characters": characters}


def attention_decode(probability: np.ndarray, alphabet: Alphabet) -> list[Transcription]:
    """Greedy decoding: the likeliest class of every step before the first that is the end. The whole batch at once.

    probability: (B, L, classes) in 0..1. Classes that are no characters (unknown, start, blank) are left out. The confidence is the mean
    probability of the characters that are kept; 0 for an empty text. Raises ValueError for an array whose classes are not those of the
    alphabet.
    """
    rows = np.asarray(probability)
    if rows.ndim != 3 or rows.shape[2] != alphabet.attention_classes:
        raise ValueError(
            f"texts are read off probabilities of shape (B, L, {alphabet.attention_classes}), {len(alphabet.characters)} characters and "
            f"blank, start, end and unknown, not {rows.shape}; the alphabet is another model's."
        )
    best = rows.argmax(2)
    kept = ~np.logical_or.accumulate(best == alphabet.end, 1) & (best != BLANK) & (best <= len(alphabet.characters))
    return transcriptions(best, kept, np.take_along_axis(rows, best[..., None], 2)[..., 0], alphabet)


def decoded(outputs: Mapping[str, np.ndarray], _sizes: Any, _settings: Any, *, alphabet: Alphabet) -> list[Transcription]:
    """The texts of a batch, as `Algorithm.decode` gives them. outputs: `probability`, (B, L, classes)."""
    return attention_decode(outputs["probability"], alphabet)
