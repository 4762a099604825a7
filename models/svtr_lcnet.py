"""SVTR-LCNet, the architecture of PP-OCR's recognisers since version 3 (Li et al. 2022, "PP-OCRv3: More Attempts for the Improvement of
Ultra Lightweight OCR System", section 3.1): a light convolutional network, a few blocks of SVTR, and a CTC head.

| | backbone | sequence |
|---|---|---|
| PP-OCRv3 | `mobilenet_v1_enhance` | `svtr` |
| PP-OCRv4, v5 mobile | `lcnet_v3_lines` | `{name: svtr, outputs: 120, tall: false}` |
| PP-OCRv6 small | `lcnet_v4_lines_small` | `light_svtr` |
| PP-OCRv6 tiny | `lcnet_v4_lines_tiny` | `separable` |

Targets and decoding are in `compress.models.ctc`, the network in `compress.models.networks.svtr_lcnet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from compress.models.alphabet import Written, alphabet_of
from compress.models.contract import Algorithm, Deviation, Input, Mean
from compress.models.ctc import ctc_recogniser, weighted
from compress.models.registry import SVTR_LCNET_PARTS, configured, named, of_network

STRIDE = 8  # pixels of width for a step, of every backbone
HEIGHT = 48  # pixels, of every line: the features are one row then


def svtr_lcnet(
    backbone: str | Mapping[str, Any] = "mobilenet_v1_enhance",
    sequence: str | Mapping[str, Any] = "svtr",
    guide: str | Mapping[str, Any] = "none",
    loss: Mapping[str, Any] = MappingProxyType({}),
    alphabet: Written = "en",
    mean: Mean = (0.5, 0.5, 0.5),
    std: Deviation = (0.5, 0.5, 0.5),
) -> Algorithm:
    """A recogniser of PP-OCR as an :class:`Algorithm` of task "recognition".

    backbone, sequence, guide: a name of `SVTR_LCNET_PARTS` in `compress.models.registry`, or a mapping of `name` and keywords.
    loss: fields of :class:`compress.models.ctc.LossWeights`. alphabet: as for :func:`compress.models.alphabet.alphabet_of`.
    mean, std: of R, G and B, of images in 0..1.
    Raises ValueError for unknown names or keywords and for wrong values.
    """
    parts = [named(SVTR_LCNET_PARTS[part], given, f"model.{part}") for part, given in (("backbone", backbone), ("sequence", sequence))]
    characters = alphabet_of(alphabet)
    network = partial(of_network, "svtr_lcnet", "svtr_lcnet_network", *parts, characters.ctc_classes)
    alone = ctc_recogniser(network, characters, Input((HEIGHT, STRIDE), (HEIGHT, 320), tuple(mean), tuple(std)))
    return configured(SVTR_LCNET_PARTS["guide"], guide, "model.guide")(weighted(alone, loss))
