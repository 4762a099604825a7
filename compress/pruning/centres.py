"""The centres of classes in the dependency graph: they read the channels of a recogniser's steps, and lose columns with them."""

from __future__ import annotations

import torch_pruning as tp
from torch import nn

from compress.models.layers import Centres


class CentreChannels(tp.BasePruningFunc):
    """Removes input channels of all centres in place; criteria do not look at them."""

    TARGET_MODULES = Centres

    def prune_in_channels(self, layer: Centres, idxs: list[int]) -> nn.Module:
        """Take columns of the table out."""
        kept = sorted(set(range(layer.places.embedding_dim)) - set(idxs))
        layer.places.weight = self._prune_parameter_and_grad(layer.places.weight, kept, 1)
        layer.places.embedding_dim = len(kept)
        return layer

    def prune_out_channels(self, layer: Centres, _idxs: list[int]) -> nn.Module:
        """There are none: it gives one distance for each step."""
        return layer

    def get_out_channels(self, _layer: Centres) -> int:
        """One."""
        return 1

    def get_in_channels(self, layer: Centres) -> int:
        """How many go in."""
        return int(layer.places.embedding_dim)


PRUNER = CentreChannels()
