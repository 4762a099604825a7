"""Exponential moving average of a network's weights and statistics (Polyak averaging)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Average = dict[str, Tensor]


def start_average(network: nn.Module) -> Average:
    """A copy of everything in the network's state."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@torch.no_grad()
def update_average(average: Average, network: nn.Module, *, decay: float, step: int) -> None:
    """average += (1 - d) (weights - average) with d = min(decay, (1 + step) / (10 + step)), so that the first steps are soon forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    state = network.state_dict()
    floating = [name for name, tensor in average.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in floating], [state[name].detach() for name in floating], 1 - decay)
    for name, tensor in average.items():
        if not tensor.is_floating_point():
            tensor.copy_(state[name])
