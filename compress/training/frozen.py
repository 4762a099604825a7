"""Layers that a stage leaves as they are while it trains the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from compress.errors import CompressError
from compress.training.features import matching_layers


def check_frozen(network: nn.Module, patterns: Sequence[str]) -> None:
    """Raises CompressError for a pattern that matches no layer, and where nothing is left to train."""
    kept = {parameter for layer in frozen_layers(network, patterns) for parameter in layer.parameters()}
    if all(parameter in kept for parameter in network.parameters()):
        raise CompressError("freeze: the patterns match every layer that could be trained; leave some of them out.")


def frozen_layers(network: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """The layers that match any of the `fnmatch` patterns, of nested ones the outermost. Raises CompressError for one without a match."""
    try:
        return [network.get_submodule(name) for name in matching_layers(network, patterns)]
    except CompressError as error:
        raise CompressError(f"freeze: {error}") from None


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Take the layers' weights out of what is trained; :func:`hold` keeps the rest of them."""
    for layer in frozen_layers(network, patterns):
        layer.requires_grad_(False)


def hold(network: nn.Module, patterns: Sequence[str]) -> None:
    """Evaluation mode for the layers: their batch norms use and keep their statistics. Lasts until training mode is next set."""
    for layer in frozen_layers(network, patterns):
        layer.eval()
