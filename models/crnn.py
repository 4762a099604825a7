"""CRNN (Shi et al. 2017, "An End-to-End Trainable Neural Network for Image-based Sequence Recognition and Its Application to Scene Text
Recognition"): convolutions, a sequence model over their columns, and a CTC head, or an attention decoder instead (Shi et al. 2016, "Robust
Scene Text Recognition with Automatic Rectification").

Targets and decoding are in `compress.models.ctc` and `compress.models.attention`, the networks in `compress.models.networks.crnn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from compress.models.alphabet import Written, alphabet_of
from compress.models.contract import Algorithm, Deviation, Input, Mean
from compress.models.ctc import weighted
from compress.models.registry import GUIDES, HEADS, LINE_PARTS, configured, line_multiple, named


def crnn(
    backbone: str | Mapping[str, Any] = "mobilenet_v3_small",
    sequence: str | Mapping[str, Any] = "bilstm",
    transform: str | Mapping[str, Any] = "none",
    head: str | Mapping[str, Any] = "ctc",
    guide: str | Mapping[str, Any] = "none",
    loss: Mapping[str, Any] = MappingProxyType({}),
    alphabet: Written = "en",
    mean: Mean = (0.5, 0.5, 0.5),
    std: Deviation = (0.5, 0.5, 0.5),
) -> Algorithm:
    """CRNN as an :class:`Algorithm` of task "recognition".

    backbone, sequence, transform, head, guide: a name from `compress.models.registry`, of `LINE_BACKBONES`, `SEQUENCES`, `TRANSFORMS`,
    `HEADS` and `GUIDES`, or a mapping of `name` and keywords. loss: fields of :class:`compress.models.ctc.LossWeights`. alphabet: as for
    :func:`compress.models.alphabet.alphabet_of`. mean, std: of R, G and B, of images in 0..1.
    Raises ValueError for unknown names or keywords and for wrong values.
    """
    given = {"transform": transform, "backbone": backbone, "sequence": sequence}
    parts = {part: named(LINE_PARTS[part], value, f"model.{part}") for part, value in given.items()}
    wanted = Input(line_multiple(parts["backbone"]["name"]), (48, 320), tuple(mean), tuple(std))
    alone = configured(HEADS, head, "model.head")(tuple(parts.values()), alphabet_of(alphabet), wanted)
    inside = () if parts["transform"]["name"] == "none" else ("transform.offsets",)
    return configured(GUIDES, guide, "model.guide")(replace(weighted(alone, loss), kept_inside=inside))
