"""Guides: a second head that teaches a recogniser with CTC in training, and is no part of what is shipped (Hu et al. 2020, "GTC: Guided
Training of CTC Towards Efficient and Accurate Scene Text Recognition").

CTC alone teaches a backbone little about where a character is: a decoder that looks at the features of each one does. In GTC, and in
PP-OCRv3 to v6, the backbone learns from the guide alone, and CTC's branch learns to read the features that it is given: CTC's gradient
stops where the branches part. `gradient: both` lets it through, which suits backbones that CTC has trained already and guides that are new.

Each takes the :class:`Algorithm` with CTC and gives the one that is guided. Networks are in `compress.models.networks.guides`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from compress.models.alphabet import Alphabet
from compress.models.attention import Longest, Smoothing, attention_targets
from compress.models.contract import Algorithm, Sample, Width
from compress.models.nrtr import Dims, Dropout, Heads, Hidden, Layers, check_heads
from compress.models.registry import of_network

if TYPE_CHECKING:
    from torch import nn

Targets = Callable[[Sample], dict[str, np.ndarray]]
Gradient = Literal["guide", "both"]


def none(algorithm: Algorithm) -> Algorithm:
    """No guide."""
    return algorithm


def nrtr(
    algorithm: Algorithm,
    dims: Dims = 384,
    heads: Heads = 12,
    hidden: Hidden = 1536,
    layers: Layers = 4,
    dropout: Dropout = 0.1,
    longest: Longest = 25,
    smoothing: Smoothing = 0.1,
    gradient: Gradient = "guide",
) -> Algorithm:
    """The decoder of a Transformer behind a linear layer, as in PP-OCRv4 to v6; keywords as for :func:`compress.models.nrtr.nrtr`.

    gradient: what teaches the backbone, the `guide` alone or `both` the guide and CTC.
    """
    check_heads(dims, heads, "model.guide")
    sizes = (dims, heads, hidden, layers, dropout)
    return guided(algorithm, partial(of_network, "guides", "NRTRGuide", sizes), longest, smoothing, gradient)


def sar(
    algorithm: Algorithm,
    hidden: Width = 512,
    keys: Width = 512,
    longest: Longest = 25,
    smoothing: Smoothing = 0.0,
    gradient: Gradient = "guide",
) -> Algorithm:
    """SAR's encoder and decoder, as in PP-OCRv3; keywords as for :func:`compress.models.sar.sar`, `gradient` as for :func:`nrtr`."""
    return guided(algorithm, partial(of_network, "guides", "SARGuide", (hidden, keys)), longest, smoothing, gradient)


def guided(algorithm: Algorithm, guide: Callable[..., nn.Module], longest: int, smoothing: float, gradient: Gradient) -> Algorithm:
    """The algorithm with a guide: in training an output `guide`, its logits, and the loss CTC + guide, 1 : 1.

    guide: builds it for the channels of the backbone, the classes and the steps. longest: characters of the longest text that has a part in
    the guide's loss. Raises ValueError for an algorithm without CTC.
    """
    alphabet = algorithm.alphabet
    if alphabet is None or algorithm.reads_targets:
        raise ValueError("model.guide: a guide teaches a recogniser with CTC, and this one has a decoder of its own; leave `guide` out.")
    sizes = (alphabet.attention_classes, longest + 1)
    return replace(
        algorithm,
        network=partial(of_network, "guides", "guided_network", algorithm.network, guide, sizes, gradient == "both"),
        targets=partial(targets_of_both, ctc=algorithm.targets, alphabet=alphabet, longest=longest),
        loss=partial(of_network, "guides", "guided_loss", ctc=algorithm.loss, smoothing=smoothing),
        copies=MappingProxyType({**algorithm.copies, "guide": "kl"}),
        kept_layers=(*algorithm.kept_layers, "guide.layer.decoder.classifier"),
        reads_targets=True,
    )


def targets_of_both(sample: Sample, ctc: Targets, alphabet: Alphabet, longest: int) -> dict[str, np.ndarray]:
    """The targets of CTC and those of :func:`compress.models.attention.attention_targets`."""
    return ctc(sample) | attention_targets(sample, alphabet, longest)
