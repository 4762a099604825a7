"""What a network costs before any runtime is asked: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    """All parameters, training branches included."""
    return sum(parameter.numel() for parameter in network.parameters())


def inference_parameters(network: nn.Module, example: Tensor) -> int:
    """Parameters of the layers that run at inference."""
    used = {parameter for layer in inference_layers(network, example).values() for parameter in layer.parameters(recurse=False)}
    return sum(parameter.numel() for parameter in used)


@torch.no_grad()
def inference_layers(network: nn.Module, example: Tensor) -> dict[str, nn.Module]:
    """Name -> module, of those that run at inference."""
    ran: set[nn.Module] = set()
    hooks = [module.register_forward_hook(lambda module, *_: ran.add(module)) for module in network.modules()]
    network.eval()
    network(example)
    for hook in hooks:
        hook.remove()
    return {name: module for name, module in network.named_modules() if module in ran}


@torch.no_grad()
def macs(network: nn.Module, shape: tuple[int, int, int, int]) -> int:
    """Multiply-accumulates of convolutions and matrix products at inference on an input of `shape`; half of torch's count of FLOPs."""
    network.eval()
    device = next(network.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.zeros(shape, device=device))
    return counter.get_total_flops() // 2
