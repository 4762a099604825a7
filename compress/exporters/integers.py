"""Quantizers as an ONNX file has them: int8 weights behind DequantizeLinear, activations through QuantizeLinear and back.

NNCF would write a weight as float behind QuantizeLinear, which makes the file larger than the float one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from compress.exporters.float_layers import rounded, saves_bytes
from compress.quantization.nncf_torch import HOOKS, quantizers

# The layers and tables whose weights lie in files in 8 bits where they compute in float.
HOLD_WEIGHTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding, nn.RNNBase)


class RoundTrip(torch.autograd.Function):
    """An activation through 8 bits and back."""

    @staticmethod
    def symbolic(graph: Any, x: Any, step: Any, zero_point: Any) -> Any:
        integers = graph.op("QuantizeLinear", x, step, zero_point)
        return graph.op("DequantizeLinear", integers, step, zero_point)

    @staticmethod
    def forward(_ctx: Any, x: Tensor, step: Tensor, zero_point: Tensor) -> Tensor:
        limits = torch.iinfo(zero_point.dtype)
        return ((x / step).round() + zero_point).clamp(limits.min, limits.max).sub(zero_point) * step


class Restore(torch.autograd.Function):
    """int8 weights back to float, one step a channel along `axis`."""

    @staticmethod
    def symbolic(graph: Any, integers: Any, step: Any, axis: int | None) -> Any:
        return graph.op("DequantizeLinear", integers, step, **({} if axis is None else {"axis_i": axis}))

    @staticmethod
    def forward(_ctx: Any, integers: Tensor, step: Tensor, axis: int | None) -> Tensor:
        shape = [1] * integers.dim()
        if axis is not None:
            shape[axis] = -1
        return integers * step.reshape(shape)


class Activation(nn.Module):
    """Stands where an activation's quantizer stood."""

    def __init__(self, step: Tensor, zero_point: Tensor) -> None:
        super().__init__()
        self.register_buffer("step", step)
        self.register_buffer("zero_point", zero_point)

    def forward(self, x: Tensor) -> Tensor:
        return RoundTrip.apply(x, self.step, self.zero_point)


class Weight(nn.Module):
    """Stands where a weight's quantizer stood and gives the stored integers whatever it is given."""

    def __init__(self, integers: Tensor, step: Tensor, axis: int | None) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("integers", integers)
        self.register_buffer("step", step)

    def forward(self, _weight: Tensor) -> Tensor:
        return Restore.apply(self.integers, self.step, self.axis)


@torch.no_grad()
def use_integers(network: nn.Module, example: Tensor) -> None:
    """Replace, in place, every quantizer of a network in evaluation mode by what an ONNX file can say.

    One forward pass with `example` tells weights from activations: a quantizer that is given a parameter is a weight's.
    """
    hooked = quantizers(network)
    parameters = {id(parameter) for parameter in network.parameters()}
    given = given_to(network, example)
    replaced: dict[nn.Module, nn.Module] = {}
    for name, quantizer in hooked.items():
        if quantizer not in replaced:
            tensor = given.get(quantizer)
            weight = tensor if id(tensor) in parameters else None
            replaced[quantizer] = exported_quantizer(quantizer, weight)
        network.set_submodule(f"{HOOKS}{name}", replaced[quantizer])


def given_to(network: nn.Module, example: Tensor) -> dict[nn.Module, Tensor]:
    """Quantizer -> what it is given in a forward pass; what it is given first, if it joins two maps and is called twice."""
    given: dict[nn.Module, Tensor] = {}

    def note(quantizer: nn.Module, inputs: tuple[Tensor]) -> None:
        given.setdefault(quantizer, inputs[0])  # what a hook returns would replace its input

    handles = [module.register_forward_pre_hook(note) for module in quantizers(network).values()]
    network(example)
    for handle in handles:
        handle.remove()
    return given


@torch.no_grad()
def as_in_files(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a quantized network that computes with the weights that files hold: also those of layers in float are on a grid of 8 bits.

    Decoders that go on with what they have read make much of that: NRTR with fresh weights gives probabilities that are 0.03 apart.
    """
    copied = copy.deepcopy(network).eval()
    in_integers = {id(tensor) for tensor in given_to(copied, example).values()}
    for layer in copied.modules():
        for parameter in layer.parameters(recurse=False) if isinstance(layer, HOLD_WEIGHTS) else ():
            if parameter.dim() > 1 and id(parameter) not in in_integers:
                integers, step = rounded(parameter.cpu().numpy())
                if saves_bytes(integers, step):
                    parameter.copy_(torch.from_numpy(integers * step))
    return copied


def exported_quantizer(quantizer: Any, weight: Tensor | None) -> nn.Module:
    """The module that replaces `quantizer`; `weight` is the parameter it is given, None for an activation.

    Activations are unsigned, whatever NNCF made of them: ONNX Runtime computes in integers only where input and output have one
    type, and a signed grid is the same grid with another zero point.
    """
    low, high = quantizer.get_input_low_input_high()
    step = (high - low) / (quantizer.levels - 1)
    if weight is None:
        zero_point = (-low / step).round().to(torch.uint8)
        return Activation(step.reshape(()), zero_point.reshape(()))
    # These values lie on the grid already, so no tie can be rounded the other way.
    integers = (quantizer(weight) / step).round().to(torch.int8).contiguous()
    axes = [axis for axis, size in enumerate(step.shape) if size > 1]
    return Weight(integers, step.flatten() if axes else step.reshape(()), axes[0] if axes else None)
