"""Modes of a network that are neither training nor evaluation."""

from __future__ import annotations

from torch import nn


def show_all_maps(network: nn.Module) -> None:
    """Evaluation mode in every layer, yet with all the maps that the loss needs: the top-level module alone is told that it trains."""
    network.eval()
    network.training = True
