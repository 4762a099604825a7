"""What stops learning late in quantization-aware training, so that the weights settle on a grid that no longer moves."""

from __future__ import annotations

from torch import nn

from compress.quantization.nncf_torch import quantizers


def hold_ranges(network: nn.Module) -> None:
    """Take the gradients of all quantizers' ranges away, so that the optimiser, whatever its momentum and decay, passes them over.

    Ranges that need no gradient would do the same for one process, but several wait for the gradient of every parameter.
    """
    for quantizer in quantizers(network).values():
        for parameter in quantizer.parameters():
            parameter.grad = None
