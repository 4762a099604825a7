"""What a network costs before any runtime is asked: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compress.models.layers import TrainingOnly


def parameters(network: nn.Module) -> int:
    """All parameters, training branches included, but for what is never shipped."""
    return sum(parameter.numel() for name, parameter in network.named_parameters() if not name.startswith(unshipped(network)))


def unshipped(network: nn.Module) -> tuple[str, ...]:
    """What the names of the weights start with that run in training alone and are part of no file but checkpoints."""
    return tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, TrainingOnly))


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
    """Multiply-accumulates of convolutions, matrix products and LSTMs at inference on an input of `shape`.

    Half of torch's count of FLOPs, and what it leaves out: the matrix products inside of LSTMs.
    """
    network.eval()
    device = next(network.parameters()).device
    recurrent: list[int] = []

    def count(layer: nn.LSTM, inputs: tuple[Tensor, ...], _output: object) -> None:
        steps = inputs[0].numel() // inputs[0].shape[-1]
        recurrent.append(steps * sum(weight.numel() for weight in layer.parameters() if weight.dim() == 2))

    handles = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, nn.LSTM)]
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.zeros(shape, device=device))
    for handle in handles:
        handle.remove()
    return counter.get_total_flops() // 2 + sum(recurrent)
