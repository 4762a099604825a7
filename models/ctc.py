"""Connectionist temporal classification (Graves et al. 2006, "Connectionist Temporal Classification"): what models with such a head share.

Targets and greedy decoding in numpy; the loss is in `compress.models.networks.ctc`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.models.alphabet import BLANK, Alphabet
from compress.models.contract import Algorithm, Input, Sample, Transcription, Weight
from compress.models.registry import checked, of_network

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Greedy:
    """A text is read off the probabilities: there is nothing to choose."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss besides CTC's, which is 1. ace: of aggregation cross entropy, 0.1 in PaddleOCR's Enhanced CTC. centre: of the
    distance between the features of steps and learned centres of their classes, 0.05 there.
    """

    ace: Weight = 0.0
    centre: Weight = 0.0


def ctc_recogniser(network: Callable[[], nn.Module], alphabet: Alphabet, wanted: Input) -> Algorithm:
    """A network of `backbone`, a sequence model and a CTC `head` as an :class:`Algorithm` of task "recognition".

    wanted: its input, of which `multiple` says how many pixels of width a step has.
    """
    return Algorithm(
        task="recognition",
        network=network,
        targets=partial(ctc_targets, alphabet=alphabet, stride=wanted.multiple[1]),
        loss=partial(of_network, "ctc", "ctc_loss"),
        decode=partial(decoded, alphabet=alphabet),
        settings=Greedy,
        tunable=MappingProxyType({}),
        copies=MappingProxyType({"logits": "kl"}),
        features=("backbone",),
        kept_layers=("head",),
        alphabet=alphabet,
        input=wanted,
    )


def weighted(algorithm: Algorithm, loss: Mapping[str, Any]) -> Algorithm:
    """An algorithm with CTC whose loss has the weights `loss`, fields of :class:`LossWeights`.

    Raises ValueError for others, and for weights of an algorithm without CTC.
    """
    if loss and algorithm.reads_targets:
        raise ValueError("model.loss: its weights are those of CTC, and this model has a decoder of its own; leave `loss` out.")
    weights = checked(LossWeights, loss, "model.loss")()
    alphabet = algorithm.alphabet
    if not loss or alphabet is None:
        return algorithm
    centred = partial(of_network, "ctc", "centred_network", algorithm.network, alphabet.ctc_classes)
    network = centred if weights.centre else algorithm.network
    return replace(algorithm, network=network, loss=partial(of_network, "ctc", "ctc_loss", weights=weights))


def ctc_targets(sample: Sample, alphabet: Alphabet, stride: int) -> dict[str, np.ndarray]:
    """`text`, (W / stride,) int64: the classes of the characters, then blanks; and `length`, int64: how many characters there are.

    stride: pixels of width for each of the network's steps. Characters that are not in the alphabet are left out. A text that does not
    fit into the steps has length 0 and is no part of the loss.
    """
    steps = sample.image.shape[1] // stride
    classes = alphabet.encoded(sample.truth.text)
    fits = steps_needed(classes) <= steps
    text = np.full(max(1, steps), BLANK, np.int64)
    if fits:
        text[: len(classes)] = classes
    return {"text": text, "length": np.array(len(classes) if fits else 0, np.int64)}


def steps_needed(classes: np.ndarray | str) -> int:
    """The fewest steps that give a text: one for each character, and a blank between two that are equal."""
    return len(classes) + sum(one == other for one, other in itertools.pairwise(classes))


def ctc_decode(probability: np.ndarray, alphabet: Alphabet) -> list[Transcription]:
    """Greedy decoding: the likeliest class of every step, repetitions joined, blanks left out. The whole batch at once.

    probability: (B, T, classes) in 0..1. The confidence is the mean probability of the steps whose character is kept, the first of each
    repetition; 0 for an empty text. Raises ValueError for an array whose classes are not those of the alphabet.
    """
    rows = np.asarray(probability)
    if rows.ndim != 3 or rows.shape[2] != alphabet.ctc_classes:
        raise ValueError(
            f"texts are read off probabilities of shape (B, T, {alphabet.ctc_classes}), a blank and {len(alphabet.characters)} "
            f"characters, not {rows.shape}; the alphabet is another model's."
        )
    best = rows.argmax(2)
    kept = best != BLANK
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    probabilities = np.take_along_axis(rows, best[..., None], 2)[..., 0]
    return transcriptions(best, kept, probabilities, alphabet)


def transcriptions(best: np.ndarray, kept: np.ndarray, probabilities: np.ndarray, alphabet: Alphabet) -> list[Transcription]:
    """The text of each row, and the mean probability of its characters as the confidence; 0 for an empty text.

    best: (B, T) classes. kept: (B, T) bool, which of them are the characters of the text. probabilities: (B, T), of those classes.
    """
    counts = kept.sum(1)
    confidences = (np.where(kept, probabilities, 0).sum(1, dtype=np.float64) / counts.clip(min=1)).tolist()
    text = "".join(map(alphabet.characters.__getitem__, (best[kept] - 1).tolist()))
    ends = counts.cumsum().tolist()
    return [Transcription(text[start:end], confidence) for start, end, confidence in zip([0, *ends], ends, confidences, strict=False)]


def decoded(outputs: Mapping[str, np.ndarray], _sizes: Any, _settings: Any, *, alphabet: Alphabet) -> list[Transcription]:
    """The texts of a batch, as `Algorithm.decode` gives them. outputs: `probability`, (B, T, classes)."""
    return ctc_decode(outputs["probability"], alphabet)
