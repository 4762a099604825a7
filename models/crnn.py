"""CRNN (Shi et al. 2017, "An End-to-End Trainable Neural Network for Image-based Sequence Recognition and Its Application to Scene Text
Recognition"): convolutions, a sequence model over their columns, and a CTC head.

Targets and decoding are in `compress.models.ctc`, the network in `compress.models.networks.crnn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from compress.models.alphabet import Written, alphabet_of
from compress.models.contract import Algorithm, Deviation, Input, Mean
from compress.models.ctc import ctc_recogniser
from compress.models.registry import LINE_PARTS, line_multiple, named, of_network


def crnn(
    backbone: str | Mapping[str, Any] = "mobilenet_v3_small",
    sequence: str | Mapping[str, Any] = "bilstm",
    transform: str | Mapping[str, Any] = "none",
    alphabet: Written = "en",
    mean: Mean = (0.5, 0.5, 0.5),
    std: Deviation = (0.5, 0.5, 0.5),
) -> Algorithm:
    """CRNN as an :class:`Algorithm` of task "recognition".

    backbone, sequence, transform: a name from `compress.models.registry`, of `LINE_BACKBONES`, `SEQUENCES` and `TRANSFORMS`, or a mapping
    of `name` and keywords.
    alphabet: as for :func:`compress.models.alphabet.alphabet_of`. mean, std: of R, G and B, of images in 0..1.
    Raises ValueError for unknown names or keywords and for wrong values.
    """
    given = {"backbone": backbone, "sequence": sequence, "transform": transform}
    parts = {part: named(LINE_PARTS[part], value, f"model.{part}") for part, value in given.items()}
    characters = alphabet_of(alphabet)
    network = partial(of_network, "crnn", "crnn_network", **parts, classes=characters.ctc_classes)
    wanted = Input(line_multiple(parts["backbone"]["name"]), (48, 320), tuple(mean), tuple(std))
    inside = () if parts["transform"]["name"] == "none" else ("transform.offsets",)
    return replace(ctc_recogniser(network, characters, wanted), kept_inside=inside)
