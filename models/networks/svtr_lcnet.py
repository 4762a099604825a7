"""The network of PP-OCR's recognisers since version 3: that of CRNN, with other parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from compress.models.networks.crnn import CRNN
from compress.models.registry import SVTR_LCNET_PARTS, configured


def svtr_lcnet_network(backbone: Mapping[str, Any], sequence: Mapping[str, Any], classes: int) -> nn.Module:
    """Backbone, sequence model and one linear layer, with fresh weights."""
    features = configured(SVTR_LCNET_PARTS["backbone"], backbone, "model.backbone")()
    steps = configured(SVTR_LCNET_PARTS["sequence"], sequence, "model.sequence")(features.channels)
    return CRNN(features, steps, nn.Linear(steps.channels, classes))
