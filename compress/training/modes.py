"""Modes of a network that are neither training nor evaluation."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm


def show_all_maps(network: nn.Module) -> None:
    """Evaluation mode in every layer, yet with all the maps that the loss needs: the top-level module alone is told that it trains."""
    network.eval()
    network.training = True


def hold_norms(network: nn.Module) -> None:
    """Let batch norms use and keep their running statistics; scale and shift learn on.

    Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 3.2.2. Lasts until the network is
    next put in training mode.
    """
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.eval()
