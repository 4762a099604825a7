"""SVTR-LCNet, the architecture of PP-OCR's recognisers since version 3 (Li et al. 2022, "PP-OCRv3: More Attempts for the Improvement of
Ultra Lightweight OCR System", section 3.1): a light convolutional network, a few blocks of SVTR, and a CTC head.

| | backbone | sequence |
|---|---|---|
| PP-OCRv3 | `mobilenet_v1_enhance` | `svtr` |
| PP-OCRv4, v5 mobile | `lcnet_v3_lines` | `{name: svtr, outputs: 120, tall: false}` |
| PP-OCRv4 server | `pphgnet_small_lines` | `{name: svtr, outputs: 120, tall: false}` |
| PP-OCRv6 small | `lcnet_v4_lines_small` | `light_svtr` |
| PP-OCRv6 tiny | `lcnet_v4_lines_tiny` | `separable` |

It is :mod:`compress.models.crnn` with other parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from compress.models.alphabet import Written
from compress.models.contract import Algorithm, Deviation, Mean
from compress.models.crnn import crnn


def svtr_lcnet(
    backbone: str | Mapping[str, Any] = "mobilenet_v1_enhance",
    sequence: str | Mapping[str, Any] = "svtr",
    guide: str | Mapping[str, Any] = "none",
    loss: Mapping[str, Any] = MappingProxyType({}),
    alphabet: Written = "en",
    mean: Mean = (0.5, 0.5, 0.5),
    std: Deviation = (0.5, 0.5, 0.5),
) -> Algorithm:
    """A recogniser of PP-OCR as an :class:`Algorithm` of task "recognition"; the keywords are those of `crnn`."""
    return crnn(backbone=backbone, sequence=sequence, guide=guide, loss=loss, alphabet=alphabet, mean=mean, std=std)
