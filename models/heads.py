"""What gives the characters behind a recogniser's sequence model: CTC, or an attention decoder.

Each takes what builds the network but for its last layers, the alphabet and the input, and gives the :class:`Algorithm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from compress.models.alphabet import Alphabet
from compress.models.attention import Longest, Smoothing, attention_recogniser
from compress.models.contract import Algorithm, Input, Width
from compress.models.ctc import ctc_recogniser
from compress.models.registry import of_network

# The transform, the backbone and the sequence model: name and keywords.
Parts = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]


def ctc(parts: Parts, alphabet: Alphabet, wanted: Input) -> Algorithm:
    """One linear layer for each step."""
    return ctc_recogniser(partial(of_network, "crnn", "crnn_network", *parts, classes=alphabet.ctc_classes), alphabet, wanted)


def conv_ctc(parts: Parts, alphabet: Alphabet, wanted: Input) -> Algorithm:
    """A 1x1 convolution over the steps and a batch norm of its logits, as in gkwangustc's pytorch_ocr."""
    network = partial(of_network, "crnn", "conv_ctc_network", *parts, classes=alphabet.ctc_classes)
    return replace(ctc_recogniser(network, alphabet, wanted), kept_layers=("head.*",))


def attention(
    parts: Parts, alphabet: Alphabet, wanted: Input, hidden: Width = 96, longest: Longest = 25, smoothing: Smoothing = 0.0
) -> Algorithm:
    """A GRU that looks at all steps for each character: PP-OCR's rec_mv3_*_att with 96 hidden channels, with a ResNet 256.

    longest: characters of the longest text it can give; longer ones are no part of the loss. smoothing: of labels, in the loss.
    """
    network = partial(of_network, "crnn", "attention_network", *parts, classes=alphabet.attention_classes, hidden=hidden, steps=longest + 1)
    return attention_recogniser(network, alphabet, wanted, longest, smoothing)
