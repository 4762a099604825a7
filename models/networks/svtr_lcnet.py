"""The network of PP-OCR's recognisers since version 3: that of CRNN, with other parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from compress.models.networks.crnn import CRNN
from compress.models.registry import LINE_BACKBONES, SEQUENCES, configured


def svtr_lcnet_network(backbone: Mapping[str, Any], sequence: Mapping[str, Any], classes: int) -> nn.Module:
    """Backbone, sequence model and one linear layer, with fresh weights."""
    features = configured(LINE_BACKBONES, backbone, "model.backbone")()
    return CRNN(features, configured(SEQUENCES, sequence, "model.sequence")(features.channels), classes)
