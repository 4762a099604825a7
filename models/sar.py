"""SAR (Li et al. 2019, "Show, Attend and Read: A Simple and Strong Baseline for Irregular Text Recognition"): a ResNet, an LSTM that reads
its columns once, and an LSTM that looks at the whole map for each character.

Targets and decoding are in `compress.models.attention`, the network in `compress.models.networks.sar`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from compress.models.alphabet import Written, alphabet_of
from compress.models.attention import Longest, Smoothing, attention_recogniser
from compress.models.contract import Algorithm, Deviation, Input, Mean, Width
from compress.models.registry import SAR_BACKBONES, named, of_network

MULTIPLE = (8, 4)  # pixels for a place in the map of features, down and across


def sar(
    backbone: str | Mapping[str, Any] = "resnet31",
    hidden: Width = 512,
    keys: Width = 512,
    longest: Longest = 29,
    smoothing: Smoothing = 0.0,
    alphabet: Written = "en",
    mean: Mean = (0.5, 0.5, 0.5),
    std: Deviation = (0.5, 0.5, 0.5),
) -> Algorithm:
    """SAR as an :class:`Algorithm` of task "recognition".

    backbone: a name of `SAR_BACKBONES` in `compress.models.registry`, or a mapping of `name` and keywords. hidden: channels of the LSTMs,
    of two layers each. keys: channels by which the attention looks for places. longest: characters of the longest text it can give; with
    its end those are 30 steps in the paper. smoothing: of labels, in the loss. alphabet: as for
    :func:`compress.models.alphabet.alphabet_of`. mean, std: of R, G and B, of images in 0..1.
    Raises ValueError for unknown names or keywords and for wrong values.
    """
    part, characters = named(SAR_BACKBONES, backbone, "model.backbone"), alphabet_of(alphabet)
    network = partial(of_network, "sar", "sar_network", part, characters.attention_classes, hidden, keys, longest + 1)
    return attention_recogniser(network, characters, Input(MULTIPLE, (48, 160), tuple(mean), tuple(std)), longest, smoothing)
