"""What a network costs before any runtime is asked: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    """All parameters, training branches included."""
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def inference_parameters(network: nn.Module, example: Tensor) -> int:
    """Parameters of the layers that run at inference."""
    used: dict[int, int] = {}

    def note(module: nn.Module, *_: object) -> None:
        used.update({id(parameter): parameter.numel() for parameter in module.parameters(recurse=False)})

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    network.eval()
    network(example)
    for hook in hooks:
        hook.remove()
    return sum(used.values())


@torch.no_grad()
def macs(network: nn.Module, shape: tuple[int, int, int, int]) -> int:
    """Multiply-accumulates of convolutions and matrix products at inference on an input of `shape`; half of torch's count of FLOPs."""
    network.eval()
    device = next(network.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.zeros(shape, device=device))
    return counter.get_total_flops() // 2
