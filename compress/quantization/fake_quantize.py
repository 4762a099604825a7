"""Fake quantization in plain torch: the two functions that NNCF's quantizers call.

NNCF compiles its own at first use, which needs a C++ compiler, or `nvcc` where a GPU is visible. These need neither, take as
long (fewer passes over memory), and round as ONNX's QuantizeLinear does, so an exported file repeats them to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def quantize_forward(x: Tensor, low: Tensor, span: Tensor, levels: int) -> Tensor:
    """Round `x` to the nearest of `levels` values spread evenly over low..low + span, of which one is exactly zero.

    low, span: broadcastable to x. round(x / step) to even, saturated, times step (ONNX QuantizeLinear, then DequantizeLinear).
    """
    step = span / (levels - 1)
    zero_point = (-low / step).round_()
    return x.div(step).round_().clamp_(-zero_point, levels - 1 - zero_point).mul_(step)


def quantize_backward(
    gradient: Tensor, x: Tensor, low: Tensor, span: Tensor, levels: int, level_low: int, level_high: int, _asymmetric: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with regard to x, low and span: straight through inside the range, of the bound outside.

    Inside, the span's gradient is the rounding error over the span (Esser et al., "Learned step size quantization", 2020,
    equation 3); below, the symmetric range moves by level_low / level_high of the upper bound.
    """
    below, above = x < low, x > low + span
    gradient_x = gradient.masked_fill(below | above, 0)
    gradient_low = (gradient - gradient_x).sum_to_size(low.shape)
    error = quantize_forward(x, low, span, levels).sub_(x).div_(span)
    error.masked_fill_(above, 1).masked_fill_(below, level_low / level_high)
    return gradient_x, gradient_low, error.mul_(gradient).sum_to_size(span.shape)


FUNCTIONS = {"Quantize_forward": torch.no_grad()(quantize_forward), "Quantize_backward": torch.no_grad()(quantize_backward)}
