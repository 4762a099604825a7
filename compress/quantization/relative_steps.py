"""Steps of training in proportion to what they change, for networks whose batch norms are folded.

A folded batch norm leaves each channel a scale of its own: the largest weights of two channels of one layer may be 1e-5 and 40. Adam's
steps are equally large for both, so that a rate which the second hardly notices destroys the first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compress.quantization.nncf_torch import quantizers

TINY = 1e-12  # dead channels have weights of exactly 0
ROUNDS = 10  # of rows and columns in turn; the factors settle within a few


def take_relative_steps(optimizer: torch.optim.Optimizer, network: nn.Module) -> None:
    """From now on a step of `optimizer` on a parameter of `network` is multiplied by that parameter's :func:`sizes` of now."""
    scales = sizes(network)
    before: dict[nn.Parameter, Tensor] = {}

    def remember(_optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        for parameter in scales:
            if parameter.grad is not None:
                before[parameter] = parameter.detach().clone()

    @torch.no_grad()
    def shorten(_optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        for parameter, old in before.items():
            parameter.sub_(old).mul_(scales[parameter]).add_(old)
        before.clear()

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(shorten)


@torch.no_grad()
def sizes(network: nn.Module) -> dict[nn.Parameter, Tensor]:
    """How large what a parameter belongs to is, in a shape that broadcasts to it.

    Weights: the product of a factor of their output and one of their input channel (:func:`balanced`). Ranges of quantizers: the range.
    All else, biases among them: its own value.
    """
    found = {parameter: parameter.abs().clamp_min(TINY) for parameter in network.parameters() if parameter.requires_grad}
    found |= {parameter: balanced(parameter) for parameter in found if parameter.dim() > 1}
    for quantizer in quantizers(network).values():
        ranges = [parameter for parameter in quantizer.parameters() if parameter in found]
        for parameter in ranges:
            found[parameter] = torch.stack([one.detach().abs() for one in ranges]).amax(0).clamp_min(TINY)
    return found


def balanced(weight: Tensor) -> Tensor:
    """Factors of the first two axes, multiplied, by which a weight of (M, N, ...) must be divided for the root mean squares of all its
    rows and all its columns to be one: those which scaled its output and its input channels, whatever they were.
    """
    squares = weight.detach().square().flatten(2).mean(2) if weight.dim() > 2 else weight.detach().square()
    squares = squares.clamp_min(TINY**2)
    rows, columns = torch.ones_like(squares[:, :1]), torch.ones_like(squares[:1])
    for _ in range(ROUNDS):
        rows = (squares / columns).mean(1, keepdim=True)
        columns = (squares / rows).mean(0, keepdim=True)
    return (rows * columns).sqrt().reshape(*squares.shape, *[1] * (weight.dim() - 2))
