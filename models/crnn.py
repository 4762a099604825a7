"""CRNN (Shi et al. 2017, "An End-to-End Trainable Neural Network for Image-based Sequence Recognition and Its Application to Scene Text
Recognition"): convolutions, a sequence model over their columns, and a CTC head.

Targets and decoding are in `compress.models.ctc`, the network in `compress.models.networks.crnn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from compress.models.alphabet import Written, alphabet_of
from compress.models.contract import Algorithm, Deviation, Input, Mean
from compress.models.ctc import ctc_recogniser
from compress.models.registry import LINE_BACKBONES, SEQUENCES, line_multiple, named, of_network


def crnn(
    backbone: str | Mapping[str, Any] = "mobilenet_v3_small",
    sequence: str | Mapping[str, Any] = "bilstm",
    alphabet: Written = "en",
    mean: Mean = (0.5, 0.5, 0.5),
    std: Deviation = (0.5, 0.5, 0.5),
) -> Algorithm:
    """CRNN as an :class:`Algorithm` of task "recognition".

    backbone, sequence: a name from `compress.models.registry`, of `LINE_BACKBONES` and `SEQUENCES`, or a mapping of `name` and keywords.
    alphabet: as for :func:`compress.models.alphabet.alphabet_of`. mean, std: of R, G and B, of images in 0..1.
    Raises ValueError for unknown names or keywords and for wrong values.
    """
    parts = named(LINE_BACKBONES, backbone, "model.backbone"), named(SEQUENCES, sequence, "model.sequence")
    characters = alphabet_of(alphabet)
    network = partial(of_network, "crnn", "crnn_network", *parts, characters.ctc_classes)
    return ctc_recogniser(network, characters, Input(line_multiple(parts[0]["name"]), (48, 320), tuple(mean), tuple(std)))
